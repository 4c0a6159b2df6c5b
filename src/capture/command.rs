//! `millrace capture`: asks for a capture, reads it to its end and writes it down.

use super::{CaptureId, CaptureQuery, CaptureRow};
use super::{file, pcapng};
use crate::Failure;
use crate::cli::{CaptureArgs, Cli};
use crate::client::{Client, ClientError};
use crate::clock;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// How often it is told how far we are.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// `capture`.
pub(crate) fn capture(cli: &Cli, args: &CaptureArgs) -> Result<(), Failure> {
    let system = |what| move |source| Failure::System { what, source };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let watched = signal_hook::flag::register(signal, Arc::clone(&stop));
        watched.map_err(system("installing signal handlers"))?;
    }
    let file = open(&args.write)?;
    let client = Client::new(cli.socket());
    let query = CaptureQuery {
        filter: args.filter.join(" "),
        count: args.count,
        seconds: args.seconds,
        snaplen: args.snaplen,
        leave_offloaded: args.leave_offloaded.then_some(true),
    };
    let begun: CaptureRow = client.post("/v1/capture", &query)?;
    eprintln!("capturing for {} s or {} packets; Ctrl-C ends it", begun.seconds, begun.count);
    let id = CaptureId { id: begun.id };
    let written = match file {
        Some(mut file) => empty(&file).and_then(|()| follow(&client, id, &stop, &mut file)),
        None => follow(&client, id, &stop, &mut io::stdout()),
    };
    // Whatever has happened, it is to end, and connections are to go back to hardware.
    let row: Result<CaptureRow, ClientError> = client.post("/v1/capture/stop", &id);
    written?;
    let row = row?;
    let summary = told(&row);
    match (cli.json, args.write == Path::new("-")) {
        (false, _) => eprint!("{summary}"),
        (true, to_stdout) => {
            // Serialising our own plain row to memory cannot fail.
            let text = serde_json::to_string_pretty(&row).unwrap_or_default();
            if to_stdout { eprintln!("{text}") } else { println!("{text}") }
        }
    }
    Ok(())
}

/// The file to write, as it is; `None` for standard output.
fn open(path: &Path) -> Result<Option<File>, Failure> {
    if path != Path::new("-") {
        let failed = |error| Failure::Other(format!("{}: {error}", path.display()));
        return file::open(path).map(Some).map_err(failed);
    }
    if io::stdout().is_terminal() {
        let error = "a pcapng file is nothing for a terminal; pipe it somewhere, or name a file";
        return Err(Failure::Other(error.to_owned()));
    }
    Ok(None)
}

/// Makes way for what comes, now that there is a capture. Pipes and devices are taken as they are.
fn empty(file: &File) -> Result<(), Failure> {
    let emptied = file.metadata().and_then(|found| if found.is_file() { file.set_len(0) } else { Ok(()) });
    emptied.map_err(not_written)
}

/// Writes pages until the last one; asks for the end when told to `stop`.
fn follow(
    client: &Client<'_>,
    id: CaptureId,
    stop: &AtomicBool,
    file: &mut dyn Write,
) -> Result<(), Failure> {
    let (mut packets, mut ended, mut stopping) = (0, false, false);
    let mut tell_at = clock::monotonic() + TOLD_EVERY;
    while !ended {
        if stop.load(Relaxed) && !std::mem::replace(&mut stopping, true) {
            let _: CaptureRow = client.post("/v1/capture/stop", &id)?;
        }
        let page = client.fetch("/v1/capture/packets", &id)?;
        file.write_all(&page).and_then(|()| file.flush()).map_err(not_written)?;
        for (kind, _) in pcapng::blocks(&page) {
            packets += u64::from(kind == pcapng::PACKET);
            ended |= kind == pcapng::STATISTICS;
        }
        if clock::monotonic() >= tell_at && std::io::stderr().is_terminal() {
            eprint!("\r{packets} packets");
            tell_at = clock::monotonic() + TOLD_EVERY;
        }
    }
    if std::io::stderr().is_terminal() {
        eprint!("\r");
    }
    Ok(())
}

fn not_written(error: io::Error) -> Failure {
    Failure::Other(format!("the capture cannot be written: {error}"))
}

fn told(row: &CaptureRow) -> String {
    let CaptureRow { packets, bytes, lost, recalled, .. } = row;
    let why = match row.ended.as_deref() {
        Some("count") => "as many as were asked for",
        Some("seconds") => "time is up",
        Some("stopped") => "stopped",
        _ => "given up",
    };
    let mut text = format!("{packets} packets, {bytes} bytes ({why})\n");
    if *lost > 0 {
        text += &format!("{lost} more came faster than they could be written\n");
    }
    if *recalled > 0 {
        text += &format!("{recalled} connections had come back from hardware for it\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_say_what_is_missing() {
        let row = CaptureRow { packets: 7, bytes: 700, ended: Some("count".into()), ..CaptureRow::default() };
        assert_eq!(told(&row), "7 packets, 700 bytes (as many as were asked for)\n");
        let row = CaptureRow { lost: 3, recalled: 2, ended: Some("stopped".into()), ..row };
        let expected = "7 packets, 700 bytes (stopped)\n3 more came faster than they could be written\n\
                        2 connections had come back from hardware for it\n";
        assert_eq!(told(&row), expected);
    }
}
