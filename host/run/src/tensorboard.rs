//! TensorBoard event files: TFRecord frames, each a protobuf `Event`.
//!
//! Frames: <https://www.tensorflow.org/tutorials/load_data/tfrecord>; messages: `tensorflow/core/util/event.proto` and
//! `framework/summary.proto`, as far as scalars need them. TensorBoard asks for wall-clock times and for file names
//! with a time in them, so these files are the one result of a run that is not the same twice.

use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

/// `tensorflow.Event`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

/// `tensorflow.Summary.Value` with its `simple_value`.
#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// `tensorflow.SessionLog`.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SessionLog.SessionStatus.START`: TensorBoard drops what earlier files say of this step and later ones.
const START: i32 = 1;

/// Writes one event file.
pub struct EventWriter {
    file: BufWriter<File>,
}

impl EventWriter {
    /// A new `events.out.tfevents.<time>.<pid>.fthost` in `folder`. What earlier files there say of step `purge_from`
    /// and later ones is void.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn create(folder: &Path, purge_from: u64) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = std::process::id();
        let mut file = None;
        // A file of the same second is another run's: names count on until one is free.
        for count in 0..1000 {
            let name = format!("events.out.tfevents.{:010}.{id}.{count}.fthost", now.as_secs());
            match File::create_new(folder.join(name)) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                opened => file = Some(opened?),
            }
            break;
        }
        let file = file.ok_or_else(|| std::io::Error::other("a thousand event files of this second"))?;
        let mut writer = Self { file: BufWriter::new(file) };
        writer.event(0, What::FileVersion("brain.Event:2".into()))?;
        writer.event(purge_from, What::SessionLog(SessionLog { status: START }))?;
        Ok(writer)
    }

    /// Writes figures of a step, each under its tag, and flushes them.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn scalars(&mut self, step: u64, values: impl Iterator<Item = (String, f32)>) -> Result<()> {
        let value = values.map(|(tag, value)| SummaryValue { tag, simple_value: Some(value) }).collect();
        self.event(step, What::Summary(Summary { value }))?;
        self.file.flush()
    }

    fn event(&mut self, step: u64, what: What) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = Event { wall_time: now.as_secs_f64(), step: step as i64, what: Some(what) };
        self.file.write_all(&frame(&event.encode_to_vec()))
    }
}

/// Length and its check, data and its check; little-endian.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut frame = Vec::with_capacity(data.len() + 16);
    frame.extend(length);
    frame.extend(masked_crc(&length).to_le_bytes());
    frame.extend(data);
    frame.extend(masked_crc(data).to_le_bytes());
    frame
}

/// CRC-32C, rotated and shifted so that a check over checked data stays useful.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: `tensorboard.compat.tensorflow_stub.pywrap_tensorflow.masked_crc32c` of the same bytes.
    #[test]
    fn checks_are_masked_as_tensorflow_masks_them() {
        assert_eq!(masked_crc(b"123456789"), 3_347_755_237);
    }

    #[test]
    fn a_file_reads_back_frame_by_frame() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), 4).unwrap();
        writer
            .scalars(4, [("train/loss".to_string(), 1.5), ("train/epoch".to_string(), 0.25)].into_iter())
            .unwrap();
        EventWriter::create(folder.path(), 0).unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().path()).collect();
        names.sort();
        assert_eq!(names.len(), 2, "a second file of the same second has a name of its own");
        let bytes = std::fs::read(&names[0]).unwrap();
        let (mut events, mut rest) = (Vec::new(), &bytes[..]);
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let check = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let data = &rest[12..12 + length];
            assert_eq!(check(8), masked_crc(&rest[..8]));
            assert_eq!(check(12 + length), masked_crc(data));
            events.push(Event::decode(data).unwrap());
            rest = &rest[16 + length..];
        }
        let what: Vec<_> = events.iter().map(|it| (it.step, it.what.clone().unwrap())).collect();
        let value = |tag: &str, value| SummaryValue { tag: tag.into(), simple_value: Some(value) };
        let expected = [
            (0, What::FileVersion("brain.Event:2".into())),
            (4, What::SessionLog(SessionLog { status: 1 })),
            (4, What::Summary(Summary { value: vec![value("train/loss", 1.5), value("train/epoch", 0.25)] })),
        ];
        assert_eq!(what, expected);
        assert!(events.iter().all(|it| it.wall_time > 1.7e9));
    }
}
