//! Which weights of a model are trained.

use std::sync::Arc;

use super::parameter::Parameter;

/// Which weights of a model are trained, a scalar head apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trained {
    /// The base's, all of them.
    #[default]
    Base,
    /// An adapter's, and those of the base's modules whose paths end so: PEFT's `modules_to_save`.
    Adapter(Arc<[String]>),
}

impl Trained {
    /// Whether the base's weight `name` is.
    pub fn selects(&self, name: &str) -> bool {
        match self {
            Self::Base => true,
            Self::Adapter(modules) => modules.iter().any(|it| is_of(name, it)),
        }
    }

    /// A visitor of the base's weights that has `visit` see those alone that are trained.
    pub fn only<'a>(
        &'a self,
        visit: &'a mut dyn FnMut(&str, Parameter<'_>),
    ) -> impl FnMut(&str, Parameter<'_>) + 'a {
        |name, parameter| {
            if self.selects(name) {
                visit(name, parameter);
            }
        }
    }

    /// As [`Trained::only`], those alone that are not.
    pub fn others<'a>(
        &'a self,
        visit: &'a mut dyn FnMut(&str, Parameter<'_>),
    ) -> impl FnMut(&str, Parameter<'_>) + 'a {
        |name, parameter| {
            if !self.selects(name) {
                visit(name, parameter);
            }
        }
    }
}

/// Whether the weight `name` is one of a module whose path ends in `module`, as PEFT matches: not at a dot alone.
pub fn is_of(name: &str, module: &str) -> bool {
    name.match_indices('.').any(|(end, _)| name[..end].ends_with(module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_found_by_the_end_of_its_path() {
        let name = "model.layers.1.mlp.up_proj.weight";
        for module in ["up_proj", "mlp", "layers.1", "model.layers.1.mlp.up_proj", "_proj", "model"] {
            assert!(is_of(name, module), "{module}");
        }
        for module in ["weight", "up", "layers.0", "gate_proj"] {
            assert!(!is_of(name, module), "{module}");
        }
        assert!(Trained::Base.selects(name) && !Trained::Adapter([].into()).selects(name));
    }
}
