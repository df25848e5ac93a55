//! A plugin's folder, as far as building and testing need it.

use std::path::{Path, PathBuf};

use fthost_registry::{MANIFEST, Manifest};

use crate::error::{AuthorError, Result, io};

/// A plugin's folder.
#[derive(Debug, Clone)]
pub struct Package {
    /// The folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
}

impl Package {
    /// Reads the package at `folder`.
    ///
    /// # Errors
    /// A folder without a manifest, and every problem of the manifest.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        if !path.is_file() {
            return Err(AuthorError::NoPackage { folder: folder.to_path_buf() });
        }
        let text = std::fs::read_to_string(&path).map_err(io("read", &path))?;
        let manifest = Manifest::parse(&text).and_then(|manifest| {
            let missing = missing_files(&manifest, folder);
            if missing.is_empty() { Ok(manifest) } else { Err(missing) }
        });
        let manifest = manifest.map_err(|problems| AuthorError::Manifest { path, problems })?;
        Ok(Self { folder: folder.to_path_buf(), manifest })
    }

    /// The name without its publisher.
    pub fn short_name(&self) -> &str {
        self.manifest.name.last()
    }

    /// Where the component is built to.
    pub fn component(&self) -> PathBuf {
        self.folder.join(self.manifest.component_path())
    }

    /// The component that is there: [`Package::component`], or that of `plugins/build` in `dist` beside the package.
    ///
    /// # Errors
    /// [`AuthorError::NotBuilt`].
    pub fn built(&self) -> Result<PathBuf> {
        let own = self.component();
        let folder = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let dist = folder.parent().map(|it| it.join("dist").join(format!("{}.wasm", self.short_name())));
        let there = [Some(own.clone()), dist].into_iter().flatten().find(|it| it.is_file());
        there.ok_or_else(|| AuthorError::NotBuilt { folder: self.folder.clone(), component: own })
    }

    /// Files of `cases/*.jsonl`, by name.
    ///
    /// # Errors
    /// A folder that can't be read.
    pub fn case_files(&self) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("cases");
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let entries = std::fs::read_dir(&folder).map_err(io("read", &folder))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|it| it.path()).collect();
        files.retain(|it| it.extension().is_some_and(|it| it == "jsonl"));
        files.sort();
        Ok(files)
    }
}

fn missing_files(manifest: &Manifest, folder: &Path) -> Vec<String> {
    let missing = manifest.resources.iter().filter(|it| !folder.join(it.1).is_file());
    missing.map(|(name, file)| format!("`resources.{name}`: there is no file `{file}`")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("plugin.toml"), text).unwrap();
        match Package::open(folder.path()) {
            Ok(package) => package.short_name().to_string(),
            Err(error) => error.to_string().replace(&format!("{}/", folder.path().display()), ""),
        }
    }

    #[test]
    fn a_manifest_is_read_and_what_its_folder_lacks_is_told() {
        let good = "name = \"team/bleu\"\nversion = \"0.1.0\"\nroles = [\"evaluator\"]\ndescription = \"x\"\n\
                    license = \"MIT\"\ncontract = \"0.2\"\n";
        assert_eq!(opened(good), "bleu");
        insta::assert_snapshot!(opened(&format!("{good}[resources]\n\"a.txt\" = \"a.txt\"\n")), @r"
        invalid `plugin.toml`
          `resources.a.txt`: there is no file `a.txt`
        ");
        insta::assert_snapshot!(opened(&format!("{good}rols = []\n")), @r"
        invalid `plugin.toml`
          `rols`: unknown key, expected one of `name`, `version`, `roles`, `license`, `description`, `contract`, `component`, `grants`, `limits`, `resources`
        ");
    }
}
