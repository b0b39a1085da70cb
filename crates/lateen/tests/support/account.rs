//! Who runs a mesh: the tests' own user, or an ordinary one made for them.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use nix::unistd::{Uid, User};

/// The user whose commands a test runs.
pub enum Account {
    /// The user that runs the tests (root in the project's own checks).
    Own,
    /// An ordinary user, made for the test and removed after it.
    Ordinary(OrdinaryUser),
}

/// A user without any right, removed when dropped.
pub struct OrdinaryUser {
    name: String,
    uid: u32,
    gid: u32,
}

/// Tests of one program run at once, but the user database takes one change at a time. Counts the users made.
static USERS: Mutex<u32> = Mutex::new(0);

impl Account {
    /// An ordinary account: a user made now where the tests run as root, the tests' own user where that is one.
    pub fn ordinary() -> Self {
        if !Uid::effective().is_root() {
            return Self::Own;
        }
        Self::made(&[])
    }

    /// An ordinary account to which the system grants no other user ids; the tests fail where they do not run as root.
    pub fn alone() -> Self {
        assert!(Uid::effective().is_root(), "run this test as root");
        Self::made(&["-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0"])
    }

    fn made(options: &[&str]) -> Self {
        let mut made = USERS
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *made += 1;
        let name = format!("lateen-test-{}-{made}", std::process::id());
        let mut command = Command::new("useradd");
        command.args(["--create-home", "--shell", "/bin/sh"]);
        run(command.args(options).arg(&name));
        let user = User::from_name(&name)
            .expect("user database")
            .expect("the user just made");
        Self::Ordinary(OrdinaryUser {
            name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        })
    }

    /// The account of root; the tests fail where they do not run as root.
    pub fn root() -> Self {
        assert!(Uid::effective().is_root(), "run this test as root");
        Self::Own
    }

    /// A command that runs as this account, with a clean environment for another user.
    pub fn command(&self, program: &Path) -> Command {
        match self {
            Self::Own => Command::new(program),
            Self::Ordinary(user) => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={}", user.uid))
                    .arg(format!("--regid={}", user.gid))
                    .args(["--init-groups", "--inh-caps=-all", "--reset-env", "--"])
                    .arg(program);
                command
            }
        }
    }

    /// Makes a folder that belongs to this account.
    pub fn folder(&self, below: &Path, name: &str) -> PathBuf {
        let folder = below.join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        if let Self::Ordinary(user) = self {
            chown(&folder, Some(user.uid), Some(user.gid)).expect("given to the user");
        }
        folder
    }

    /// User id of the processes that this account starts.
    pub fn uid(&self) -> u32 {
        match self {
            Self::Own => Uid::effective().as_raw(),
            Self::Ordinary(user) => user.uid,
        }
    }
}

impl Drop for OrdinaryUser {
    fn drop(&mut self) {
        let _one_at_a_time = USERS
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // A failure leaves a user behind, which the next run's other name does not trip over.
        let _ = Command::new("userdel")
            .args(["--force", "--remove", &self.name])
            .output();
    }
}

/// Copies the binary to where every user can run it: the checkout may lie in a private folder.
pub fn public_binary(folder: &Path) -> PathBuf {
    let copy = folder.join("lateen");
    // By another process: a child that a test beside this one starts would inherit a file that is open for writing, and
    // what is open for writing cannot be run.
    run(Command::new("install")
        .args(["-m", "755", env!("CARGO_BIN_EXE_lateen")])
        .arg(&copy));
    copy
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
