//! The line from guest to host over the second serial port: one frame a line, numbered and checked, so
//! that a torn, lost or foreign line is noticed instead of being a result that silently is not there.
//!
//! `@punch KIND NUMBER LENGTH CRC32 TEXT`, the numbers in hexadecimal.

use serde::{Deserialize, Serialize};

const MARK: &str = "@punch";
/// No record is this long; what is, is garbage.
const MAX_LINE: usize = 8 << 20;

/// What the guest's init tells of itself, between the program's records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Control {
    /// The first frame: the kernel runs our init.
    Hello { release: String, version: String },
    /// A module did not load.
    ModuleFailed {
        name: String,
        required: bool,
        error: String,
    },
    /// The program is about to start.
    Ready,
    /// The program could not be started.
    SetupFailed { error: String },
    /// The last frame.
    Done { exit: i32 },
}

/// One line's content.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Frame {
    /// A line of the program's, as text.
    Record(String),
    Control(Control),
}

/// Numbers and seals the guest's lines.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    number: u32,
}

impl Encoder {
    pub(crate) fn record(&mut self, line: &[u8]) -> Vec<u8> {
        self.line('r', line)
    }

    pub(crate) fn control(&mut self, control: &Control) -> Vec<u8> {
        let text = serde_json::to_vec(control).expect("strings and numbers always serialize");
        self.line('c', &text)
    }

    fn line(&mut self, kind: char, text: &[u8]) -> Vec<u8> {
        let number = self.number;
        self.number = number.saturating_add(1);
        let mut line = head(kind, number, text).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        line
    }
}

/// Reads the lines on the host.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    expected: u32,
    /// Unreadable lines since the last good one: each may be one of the numbers that are missing then.
    unreadable: u32,
    started: bool,
}

impl Decoder {
    /// Takes bytes as they come and gives the frames they complete; an error describes a damaged line.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Result<Frame, String>> {
        let mut frames = Vec::new();
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.buffer.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.buffer);
                self.line(&line[..line.len() - 1], &mut frames);
            } else if self.buffer.len() > MAX_LINE {
                let line = std::mem::take(&mut self.buffer);
                frames.push(Err(excerpt("endless line", &line)));
            }
        }
        frames
    }

    /// What came without an end; `None` if the last line was whole.
    pub(crate) fn rest(&self) -> Option<String> {
        (self.started && !self.buffer.is_empty()).then(|| excerpt("unfinished line", &self.buffer))
    }

    fn line(&mut self, line: &[u8], frames: &mut Vec<Result<Frame, String>>) {
        match parse(line) {
            Ok((number, _)) if number < self.expected => {
                // Whoever counts anew is not the one that was listened to so far.
                let expected = self.expected;
                frames.push(Err(format!(
                    "line {number} came where {expected} was due: a second sender, or a line sent twice"
                )));
            }
            Ok((number, frame)) => {
                let lost = number - self.expected;
                if lost > self.unreadable {
                    frames.push(Err(format!("{lost} line(s) lost before number {number}")));
                }
                self.started = true;
                self.unreadable = 0;
                self.expected = number.saturating_add(1);
                frames.push(Ok(frame));
            }
            // Firmware and a probing driver may leave bytes on the port before our init has it.
            Err(_) if !self.started => {}
            Err(why) => {
                self.unreadable += 1;
                frames.push(Err(excerpt(why, line)));
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<(u32, Frame), &'static str> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let mut field = || {
        fields
            .next()
            .and_then(|f| str::from_utf8(f).ok())
            .unwrap_or_default()
    };
    if field() != MARK {
        return Err("not a line of ours");
    }
    let kind = field().chars().next().unwrap_or_default();
    let number = u32::from_str_radix(field(), 16).map_err(|_| "torn head")?;
    let _ = (field(), field());
    let text = fields.next().ok_or("torn head")?;
    // One spelling only: this checks length and checksum, and that nothing was changed in the head.
    if !line.starts_with(head(kind, number, text).as_bytes()) {
        return Err("wrong length or checksum");
    }
    let text = str::from_utf8(text).map_err(|_| "not UTF-8")?;
    match kind {
        'r' => Ok((number, Frame::Record(text.to_owned()))),
        'c' => serde_json::from_str(text)
            .map(|control| (number, Frame::Control(control)))
            .map_err(|_| "unknown message"),
        _ => Err("unknown kind"),
    }
}

/// What precedes the text. The checksum covers kind and number too.
fn head(kind: char, number: u32, text: &[u8]) -> String {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(format!("{kind}{number:x} ").as_bytes());
    hasher.update(text);
    format!(
        "{MARK} {kind} {number:x} {:x} {:08x} ",
        text.len(),
        hasher.finalize()
    )
}

fn excerpt(why: &str, line: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&line[..line.len().min(120)]).into_owned();
    format!("{why}: {shown:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn three() -> (Vec<Vec<u8>>, Vec<Frame>) {
        let mut encoder = Encoder::default();
        let hello = Control::Hello {
            release: "5.10".into(),
            version: "#1 SMP".into(),
        };
        let done = Control::Done { exit: 3 };
        let lines = vec![
            encoder.control(&hello),
            encoder.record(b"{\"a\": 1}"),
            encoder.control(&done),
        ];
        let frames = vec![
            Frame::Control(hello),
            Frame::Record("{\"a\": 1}".into()),
            Frame::Control(done),
        ];
        (lines, frames)
    }

    #[test]
    fn frames_come_through_in_any_pieces_after_noise() {
        let (lines, frames) = three();
        let mut bytes = b"noise\n\xff\0".to_vec();
        bytes.push(b'\n');
        bytes.extend(lines.concat());
        for piece in [1, 2, 7, bytes.len()] {
            let mut decoder = Decoder::default();
            let got: Vec<_> = bytes
                .chunks(piece)
                .flat_map(|chunk| decoder.feed(chunk))
                .collect();
            let got: Result<Vec<_>, _> = got.into_iter().collect();
            assert_eq!(got.as_deref(), Ok(&frames[..]));
            assert_eq!(decoder.rest(), None);
        }
    }

    #[test]
    fn a_lost_line_and_a_torn_end_are_told() {
        let (lines, _) = three();
        let mut decoder = Decoder::default();
        assert!(decoder.feed(&lines[0])[0].is_ok());
        let got = decoder.feed(&lines[2]);
        assert!(
            got[0].as_ref().is_err_and(|e| e.contains("1 line(s) lost")),
            "{got:?}"
        );
        assert!(got[1].is_ok());
        decoder.feed(&lines[1][..10]);
        assert!(decoder.rest().is_some());
    }

    #[test]
    fn foreign_lines_cost_none_of_ours() {
        let (lines, frames) = three();
        let mut decoder = Decoder::default();
        decoder.feed(&lines[0]);
        let got = decoder.feed(b"a shell's prompt\nand more\n");
        assert!(got.len() == 2 && got.iter().all(Result::is_err), "{got:?}");
        assert_eq!(decoder.feed(&lines[1]), [Ok(frames[1].clone())]);
    }

    #[test]
    fn a_line_torn_in_two_is_told_by_its_pieces_alone() {
        let (lines, frames) = three();
        let mut decoder = Decoder::default();
        decoder.feed(&lines[0]);
        let torn = [&lines[1][..9], b"\n", &lines[1][9..]].concat();
        let got = decoder.feed(&torn);
        assert!(got.len() == 2 && got.iter().all(Result::is_err), "{got:?}");
        assert_eq!(decoder.feed(&lines[2]), [Ok(frames[2].clone())]);
    }

    /// A second init on the port: its lines are whole, but not ours.
    #[test]
    fn a_second_sender_is_named_and_not_believed() {
        let (lines, frames) = three();
        let mut decoder = Decoder::default();
        decoder.feed(&lines[..2].concat());
        let got = decoder.feed(&lines[..2].concat());
        let told = |e: &String| e.contains("second sender") && !e.contains("lost");
        assert!(
            got.len() == 2 && got.iter().all(|g| g.as_ref().is_err_and(told)),
            "{got:?}"
        );
        assert_eq!(decoder.feed(&lines[2]), [Ok(frames[2].clone())]);
    }

    #[test]
    fn an_endless_line_is_bounded() {
        let mut decoder = Decoder::default();
        let chunk = vec![b'x'; 1 << 20];
        let damaged: usize = (0..10).map(|_| decoder.feed(&chunk).len()).sum();
        assert_eq!(damaged, 1);
        assert!(decoder.buffer.len() <= MAX_LINE);
    }

    proptest! {
        /// No single changed, dropped or doubled byte goes unnoticed once the guest has said hello.
        #[test]
        fn damage_is_noticed(at in any::<prop::sample::Index>(), change in 0..3, to in any::<u8>()) {
            let (lines, frames) = three();
            let mut bytes = lines[1..].concat();
            let at = at.index(bytes.len());
            match change {
                0 => { prop_assume!(bytes[at] != to); bytes[at] = to; }
                1 => { bytes.remove(at); }
                _ => { bytes.insert(at, to); }
            }
            let mut decoder = Decoder::default();
            decoder.feed(&lines[0]);
            let got = decoder.feed(&bytes);
            let whole: Vec<_> = got.iter().flatten().cloned().collect();
            let told = got.iter().any(Result::is_err) || decoder.rest().is_some();
            prop_assert!(told, "unnoticed: {:?}", String::from_utf8_lossy(&bytes));
            for frame in whole {
                prop_assert!(frames.contains(&frame));
            }
        }
    }
}
