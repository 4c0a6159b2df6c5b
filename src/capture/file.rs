//! The file that a capture is written to. It is often root who captures, and what clients say is in it:
//! nobody else is to choose where that goes, nor to read it.
//!
//! In a directory of our own, or of root's, that nobody else may write to, what is there is meant to be
//! there: files are written over, links are followed. In any other (`/tmp`, or somebody's home where root
//! captures) the file must be new, or already ours alone.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Links in a row that are followed, as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// Opens a file to be written, as it is; one that is made here is for us alone.
///
/// # Errors
///
/// Others may have put there what is there, or the operating system refuses.
pub(super) fn open(path: &Path) -> Result<File> {
    let own = std::fs::metadata("/proc/self")?.uid();
    let (path, shared) = follow(path, own)?;
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    if !shared {
        return options.create(true).truncate(false).open(path);
    }
    // Exclusively: a link is not followed either.
    match options.clone().create_new(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => return made,
    }
    // To open a device or a pipe may be to do something: looked at before, and again whether that is it.
    let there = std::fs::symlink_metadata(&path)?;
    check(&there, own)?;
    let file = options.open(&path)?;
    let opened = file.metadata()?;
    check(&opened, own)?;
    if (opened.dev(), opened.ino()) != (there.dev(), there.ino()) {
        return Err(refused("was changed just now"));
    }
    Ok(file)
}

/// Where `path` leads, and whether others may write to the directory there. In such a one no link is
/// followed.
fn follow(path: &Path, own: u32) -> Result<(PathBuf, bool)> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new(".")).to_owned();
        let kept = std::fs::metadata(&directory)?;
        let shared = kept.mode() & 0o022 != 0 || ![0, own].contains(&kept.uid());
        if !std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) {
            return Ok((path, shared));
        }
        if shared {
            return Err(refused("is a link"));
        }
        let next = directory.join(std::fs::read_link(&path)?);
        // What /proc has for open files are links by name only.
        if std::fs::symlink_metadata(&next).is_err() && path.exists() {
            return Ok((path, false));
        }
        path = next;
    }
    Err(Error::new(ErrorKind::InvalidInput, "too many links in a row"))
}

/// Whether nobody else can have put a file there.
fn check(found: &Metadata, own: u32) -> Result<()> {
    match found {
        found if found.is_symlink() => Err(refused("is a link")),
        found if found.uid() != own => Err(refused("is somebody else's")),
        found if found.nlink() > 1 => Err(refused("has other names")),
        _ => Ok(()),
    }
}

fn refused(fault: &str) -> Error {
    let remedy = "remove it, or name a file in a directory of your own";
    let error = format!("{fault}, in a directory where others may put files; {remedy}");
    Error::new(ErrorKind::PermissionDenied, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::process::{Command, Stdio};

    /// A directory of ours, and one within it that everyone may write to, with a file that is precious.
    fn directories() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let own = tempfile::tempdir().expect("a directory");
        let (shared, precious) = (own.path().join("shared"), own.path().join("precious"));
        std::fs::create_dir(&shared).expect("made");
        std::fs::set_permissions(&shared, Permissions::from_mode(0o1777)).expect("set");
        std::fs::write(&precious, "precious").expect("written");
        (own, shared, precious)
    }

    fn refusal(path: &Path) -> String {
        open(path).expect_err("refused").to_string()
    }

    #[test]
    fn a_new_file_is_for_us_alone_and_may_be_written_again() {
        let (own, shared, _) = directories();
        for directory in [own.path(), &shared] {
            let path = directory.join("new");
            for _ in 0..2 {
                let found = open(&path).expect("opened").metadata().expect("metadata");
                assert_eq!((found.mode() & 0o777, found.is_file()), (0o600, true));
            }
        }
    }

    #[test]
    fn links_are_followed_only_where_nobody_else_can_lay_them() {
        let (own, shared, precious) = directories();
        let inode = |path: &Path| std::fs::metadata(path).expect("there").ino();
        let ours = own.path().join("link");
        symlink("precious", &ours).expect("laid");
        let opened = open(&ours).expect("opened").metadata().expect("metadata");
        assert_eq!(opened.ino(), inode(&precious));
        let theirs = shared.join("link");
        symlink(&precious, &theirs).expect("laid");
        assert!(refusal(&theirs).starts_with("is a link, in a directory where others may put files;"));
        // Nor by way of one of ours, nor to what is not there yet.
        let way = own.path().join("way");
        symlink("shared/link", &way).expect("laid");
        assert!(refusal(&way).starts_with("is a link"));
        let dangling = shared.join("dangling");
        symlink(own.path().join("nothing"), &dangling).expect("laid");
        assert!(refusal(&dangling).starts_with("is a link"));
        assert!(!own.path().join("nothing").exists());
        let circle = own.path().join("circle");
        symlink("circle", &circle).expect("laid");
        assert_eq!(refusal(&circle), "too many links in a row");
        assert_eq!(std::fs::read_to_string(&precious).expect("there"), "precious");
    }

    #[test]
    fn what_others_have_put_there_is_not_written_to() {
        let (_own, shared, precious) = directories();
        let second = shared.join("second");
        std::fs::hard_link(&precious, &second).expect("laid");
        assert!(refusal(&second).starts_with("has other names"));
        let theirs = shared.join("theirs");
        std::fs::write(&theirs, "").expect("written");
        // Only root can make it so.
        if chown(&theirs, Some(65_534), None).is_ok() {
            assert!(refusal(&theirs).starts_with("is somebody else's"));
        }
    }

    #[test]
    fn open_files_and_devices_are_taken_as_they_are() {
        let opened = open(Path::new("/dev/null")).expect("opened").metadata().expect("metadata");
        assert!(!opened.is_file());
        let mut reader = Command::new("cat").stdin(Stdio::piped()).spawn().expect("started");
        let pipe = reader.stdin.take().expect("a pipe");
        let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
        assert!(!open(Path::new(&path)).expect("opened").metadata().expect("metadata").is_file());
        drop(pipe);
        assert!(reader.wait().expect("ended").success());
    }
}
