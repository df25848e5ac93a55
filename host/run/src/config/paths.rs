//! Where the paths of a run file lead.

use std::path::Path;

use super::{Adapter, RunConfig};
use crate::dataset::HeldOut;
use crate::judges::JudgeConfig;

impl RunConfig {
    /// Lets paths that are relative begin in `folder`, the run file's.
    pub(super) fn stand_in(&mut self, folder: &Path) {
        for (_, plugin) in &mut self.plugins.0 {
            plugin.component = plugin.component.take().map(|it| folder.join(it));
            let granted = plugin.grants.resources.values_mut();
            granted.for_each(|it| it.file = folder.join(&it.file));
        }
        for judge in self.judges.values_mut() {
            if let JudgeConfig::Folder { path } = judge {
                *path = folder.join(&path);
            }
        }
        for reward in self.rewards.values_mut() {
            reward.path = folder.join(&reward.path);
            reward.base = reward.base.take().map(|it| folder.join(it));
        }
        self.model.path = self.model.path.take().map(|it| folder.join(it));
        if let Some(Adapter::Peft { path }) = &mut self.adapter {
            *path = folder.join(&path);
        }
        self.output.dir = folder.join(&self.output.dir);
        self.data.files.iter_mut().for_each(|file| *file = folder.join(&file));
        if let Some(HeldOut::Files(files)) = &mut self.data.held_out {
            files.iter_mut().for_each(|file| *file = folder.join(&file));
        }
    }
}
