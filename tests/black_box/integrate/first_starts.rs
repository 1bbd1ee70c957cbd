//! Starts of a program that is canceled, cannot store its key, or lacks the certificate.

use crate::integrate::harness::{Bench, Circumstances};

pub fn asks_the_server_nothing_if_the_user_cancels(bench: &mut Bench) {
    let before = bench.relay.connections();
    let mut run = bench.run(&Circumstances {
        home: "canceling",
        ..Circumstances::default()
    });
    run.says("License key");
    run.cancel();
    let message = run.refusal();
    assert!(message.contains("kein Lizenzschl"), "{message}");
    assert_eq!(bench.relay.connections(), before);
}

pub fn asks_again_for_a_key_that_it_cannot_forget(bench: &mut Bench) {
    bench.copy_home("stuck");
    let key = bench.stored("stuck", "key");
    std::fs::remove_file(&key).unwrap();
    // No key, and not even root can write it.
    std::os::unix::fs::symlink("/proc/version", &key).unwrap();
    let before = bench.relay.connections();
    let mut run = bench.run(&Circumstances {
        home: "stuck",
        ..Circumstances::default()
    });
    run.says("License key");
    run.enter(&bench.key);
    run.says("Running. Press Enter to end.");
    let calls = bench.relay.connections() - before;
    assert!(calls < 8, "{calls} calls");
    run.finish();
}

pub fn names_the_missing_certificate(bench: &mut Bench) {
    bench.install_changed("bare-of-ca", &[]);
    std::fs::remove_file(bench.server.path("bare-of-ca/ca.pem")).unwrap();
    // With a valid lease too.
    let run = bench.run(&Circumstances {
        folder: "bare-of-ca",
        ..Circumstances::default()
    });
    let message = run.refusal();
    assert!(message.contains("bare-of-ca/ca.pem"), "{message}");
}
