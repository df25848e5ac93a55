//! The model that is part of the program: what a run uses that names none, with no network.
//!
//! A Llama of 0.87 M parameters, trained by this program on a small corpus (`host/run/embedded/make.sh`, licences in
//! `NOTICE` beside it). It answers in the form of a conversation and knows little.

use std::path::{Path, PathBuf};

use fthost_data::digest::sha256;

use crate::error::{Result, RunError};
use crate::place;

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_bytes!(concat!("../../embedded/model/", $name)).as_slice())),+]
    };
}

/// Names and contents.
const FILES: [(&str, &[u8]); 6] = files![
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// Hexadecimal digits of the digest that name the folder.
const DIGITS: usize = 16;

/// Puts the model into the user's cache, unless it is there, and gives its folder.
///
/// # Errors
/// A cache that can't be written.
pub fn unpack() -> Result<PathBuf> {
    unpack_into(&place::cache_dir().join("models"))
}

/// As [`unpack`], into `cache`: the folder's name holds the digest of its contents. It is made under another name and
/// renamed, so that of two programs at once each finds it whole; what does not match its digest is made anew.
///
/// # Errors
/// A folder that can't be written.
pub fn unpack_into(cache: &Path) -> Result<PathBuf> {
    let told: String = FILES.iter().map(|(name, bytes)| format!("{name} {}\n", sha256(bytes))).collect();
    let digest = sha256(told.as_bytes());
    let digits = digest.trim_start_matches("sha256:").get(..DIGITS).expect("a digest is longer");
    let folder = cache.join(format!("embedded-{digits}"));
    if is_whole(&folder) {
        return Ok(folder);
    }
    std::fs::create_dir_all(cache).map_err(RunError::output(cache))?;
    let fail = || RunError::output(&folder);
    let temporary = tempfile::Builder::new().prefix(".embedded-").tempdir_in(cache).map_err(fail())?;
    let made = temporary.path().join("model");
    std::fs::create_dir(&made).map_err(fail())?;
    for (name, bytes) in FILES {
        std::fs::write(made.join(name), bytes).map_err(fail())?;
    }
    // A folder that is there is left in its place while it is whole: another program may be reading it.
    if std::fs::rename(&made, &folder).is_ok() || is_whole(&folder) {
        return Ok(folder);
    }
    // A damaged one makes way.
    let _ = std::fs::rename(&folder, temporary.path().join("damaged"));
    match std::fs::rename(&made, &folder) {
        Err(_) if is_whole(&folder) => Ok(folder),
        done => done.map(|()| folder.clone()).map_err(fail()),
    }
}

/// Whether the folder holds exactly these files.
fn is_whole(folder: &Path) -> bool {
    FILES.iter().all(|(name, bytes)| std::fs::read(folder.join(name)).is_ok_and(|it| it == *bytes))
}

#[cfg(test)]
mod tests {
    use fthost_data::{Message, Role, Tokenizer};
    use fthost_engine::Device;
    use fthost_engine::checkpoint::load_model;

    use super::*;

    #[test]
    fn the_embedded_model_loads_and_fits_its_tokenizer() {
        let cache = tempfile::tempdir().unwrap();
        let folder = unpack_into(cache.path()).unwrap();
        let model = load_model(&folder, &Device::flex()).unwrap();
        let tokenizer = Tokenizer::load(&folder).unwrap();
        assert_eq!(tokenizer.token_id("<|im_end|>"), Some(2));
        assert!(tokenizer.eos_ids.contains(&2));
        let template = tokenizer.chat_template.clone().unwrap();
        let text = template.render(&[Message::new(Role::User, "Hi")], true).unwrap();
        assert_eq!(
            text,
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
        let ids = tokenizer.encode("12345").unwrap().ids;
        assert_eq!(ids.len(), 5, "digits one by one");
        let odd = "{\"name\": \"Łukasz\"} 你好 \u{1f642}";
        let ids = tokenizer.encode(odd).unwrap().ids;
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), odd, "any text has tokens");
        assert!(ids.iter().all(|it| (*it as usize) < model.config.vocab_size));
    }

    #[test]
    fn it_is_unpacked_once_and_made_anew_where_damaged() {
        let cache = tempfile::tempdir().unwrap();
        let folder = unpack_into(cache.path()).unwrap();
        let path = folder.join("config.json");
        let made = || path.metadata().unwrap().modified().unwrap();
        let first = made();
        assert_eq!(unpack_into(cache.path()).unwrap(), folder);
        assert_eq!(made(), first, "not written again");
        std::fs::write(&path, "{}").unwrap();
        unpack_into(cache.path()).unwrap();
        assert!(is_whole(&folder));
        assert_eq!(cache.path().read_dir().unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn many_at_once_each_find_it_whole() {
        let cache = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert!(unpack_into(cache.path()).unwrap().join("config.json").exists()));
            }
        });
        assert!(is_whole(&unpack_into(cache.path()).unwrap()));
        assert_eq!(cache.path().read_dir().unwrap().count(), 1, "nothing else is left");
    }
}
