"""{{ description }}."""
import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.about import ConfigProblem, Description
