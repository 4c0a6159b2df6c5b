//! The program as a shell sees it: exit codes, and which stream says what.

use std::process::{Command, Output};

const GOOD: &str = r#"
[[port]]
name = "wan"
device = "net_null0"
addresses = ["10.0.0.1/24"]

[[service]]
name = "web"
vip = "192.0.2.1"
protocol = "tcp"
ports = [80]

[[service.backend]]
address = "10.0.0.2"
"#;

fn millrace(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.env_remove("MILLRACE_SOCKET").args(arguments).output().expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// `check` on a file with this content: exit code, standard output, standard error.
fn check(content: &str, json: bool) -> (Option<i32>, String, String) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("m.toml");
    std::fs::write(&file, content).expect("written");
    let mut arguments = vec!["check", file.to_str().expect("UTF-8")];
    arguments.extend(json.then_some("--json"));
    let output = millrace(&arguments);
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_good_configuration_is_called_good() {
    let (code, stdout, stderr) = check(GOOD, false);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.ends_with("m.toml: good\n"), "{stdout}");
}

#[test]
fn every_fault_is_listed_and_the_exit_code_is_two() {
    let faulty = GOOD.replace("tcp", "sctp").replace("10.0.0.2", "10.0.0.256") + "wait = 3\n";
    let (code, stdout, stderr) = check(&faulty, false);
    assert_eq!((code, stderr.as_str()), (Some(2), ""));
    for word in ["sctp", "10.0.0.256", "wait"] {
        assert!(stdout.contains(word), "{word} is not in\n{stdout}");
    }
}

#[test]
fn machines_get_faults_as_json() {
    let (code, stdout, _) = check(&GOOD.replace("tcp", "sctp"), true);
    let faults: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((code, faults["faults"][0]["severity"].as_str()), (Some(2), Some("error")));
    let (code, stdout, _) = check(GOOD, true);
    let faults: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((code, faults["faults"].as_array().map(Vec::len)), (Some(0), Some(0)));
}

#[test]
fn a_missing_file_is_the_user_s_to_mend() {
    for arguments in [&["check", "/nonexistent/m.toml"][..], &["run", "-c", "/nonexistent/m.toml"]] {
        let output = millrace(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("/nonexistent/m.toml"));
    }
}

#[test]
fn run_refuses_a_faulty_configuration_before_anything_starts() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("m.toml");
    std::fs::write(&file, GOOD.replace("tcp", "sctp")).expect("written");
    let output = millrace(&["run", "--config", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("sctp") && !stderr.contains("EAL"), "{stderr}");
}

#[test]
fn commands_say_that_millrace_does_not_run() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let socket = directory.path().join("sock");
    let socket = socket.to_str().expect("UTF-8");
    let commands: [&[&str]; 4] = [
        &["show", "services"],
        &["show", "connections", "--json"],
        &["drain", "web", "10.0.0.2"],
        &["reload"],
    ];
    for words in commands {
        let output = millrace(&[words, &["--socket", socket]].concat());
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert_eq!(text(&output.stdout), "");
        let stderr = text(&output.stderr);
        assert!(stderr.contains("not running") && stderr.contains(socket), "{stderr}");
    }
}

#[test]
fn version_and_help_need_nobody() {
    let output = millrace(&["version", "--socket", "/nonexistent/sock"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).starts_with(concat!("millrace ", env!("CARGO_PKG_VERSION"), " (")));
    let help = text(&millrace(&["--help"]).stdout);
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
    assert_eq!(millrace(&["show"]).status.code(), Some(2));
}

#[test]
fn partitions_are_told_without_starting_anything() {
    let example = "examples/source-partition.toml";
    let plain = millrace(&["partitions", example]);
    assert_eq!((plain.status.code(), text(&plain.stderr).as_str()), (Some(0), ""));
    assert!(text(&plain.stdout).starts_with("dns: 64 partitions\n"), "{}", text(&plain.stdout));

    let file = tempfile::NamedTempFile::new().expect("a file");
    let list: String = (0..256).map(|n| format!("198.51.{}.{n} 3\n", n % 7)).collect();
    std::fs::write(file.path(), list + "2001:db8::1 5 # of the other family\n").expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let told = millrace(&["--json", "partitions", example, "--addresses", path]);
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    let backends = told[0]["backends"].as_array().expect("a list");
    let sum =
        |key: &str| backends.iter().map(|backend| backend[key].as_u64().expect("a number")).sum::<u64>();
    assert_eq!((backends.len(), sum("partitions"), sum("packets")), (3, 64, 768));
    assert!(told[0]["worst_percent"].as_f64().is_some_and(|worst| (100.0..104.0).contains(&worst)), "{told}");

    std::fs::write(file.path(), "198.51.100.1\nnobody\n").expect("written");
    let refused = millrace(&["partitions", example, "--addresses", path]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("line 2: `nobody` is not an address"));
}
