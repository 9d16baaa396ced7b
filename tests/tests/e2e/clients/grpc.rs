//! gRPC as its own project makes it: client, gateway, server.

use std::{path::Path, process::Command};

use anyhow::Result;
use fleetgate_tests::e2e::{
    Gateway, VIP,
    manifests::{self, Ingress},
    pod_named,
    program::{self, Client},
};
use serde_json::json;
use xtask::setup::clients::GRPC;

const PORT: u16 = 9000;
const HOST: &str = "grpc.example.com";

fn serve(gateway: &mut Gateway, python: &Path, name: &str) -> Result<std::process::Child> {
    let pod = pod_named(name)?;
    let mut command = Command::new(python);
    command.args(["-I", "-c", include_str!("grpc_pod.py"), name]);
    command.arg(format!("{}:{PORT}", pod.address));
    program::serve(gateway, &pod, PORT, &command)
}

#[test]
fn grpc_calls_of_every_kind_pass_over_tls_and_without() -> Result<()> {
    let python = GRPC.python()?;
    let (mut gateway, authority, trusted) = super::gateway(HOST)?;
    for (path, text) in manifests::clusters("calls", PORT, "None", |pod| pod.ends_with("p1")) {
        gateway.write(&path, &text)?;
    }
    let calls = Ingress::new("calls", 80).https(443);
    let calls = calls.host(HOST).secret("site");
    let calls = calls.service("calls");
    let calls = calls.note("alb.ingress.kubernetes.io/backend-protocol", "grpc");
    gateway.write("fleet/calls.yaml", &calls.yaml())?;
    let mut near = serve(&mut gateway, &python, "c1-p1")?;
    let mut far = serve(&mut gateway, &python, "c2-p1")?;
    gateway.start()?;
    assert_eq!(gateway.problems()?, []);

    let program = include_str!("grpc_client.py");
    let trusted = trusted.display().to_string();
    let mut encrypted = Client::start(&python, program, &[&format!("{VIP}:443"), HOST, &trusted])?;
    let mut plain = Client::start(&python, program, &[&format!("{VIP}:80"), HOST])?;
    for client in [&mut encrypted, &mut plain] {
        client.tells(&[
            json!(["unary", "hello", "a, b", "00ff10", "5"]),
            json!(["empty message", 0]),
            json!(["large message", 3 << 20, true]),
            json!(["packed message", true]),
            json!(["server stream", 40, true]),
            json!(["client stream", "0 1 100000 1048576"]),
            json!(["client stream of nothing", ""]),
            json!(["both ways, in turns", "one", "two", "three", "over", "OK"]),
            json!([
                "status",
                "FAILED_PRECONDITION",
                "100 % shut: größer",
                "shop is shut",
                "0809ff"
            ]),
            json!(["unknown method", "UNIMPLEMENTED"]),
            json!(["deadline", "DEADLINE_EXCEEDED", true]),
            json!(["cancelled", "CANCELLED", true]),
            json!(["at once", 100, ["c1-p1", "c2-p1"]]),
            json!(["held", "before"]),
        ])?;
    }

    // Another certificate, while both hold a stream.
    let renewed = authority.server(&[HOST])?;
    gateway.write("fleet/site.yaml", &renewed.secret("site"))?;
    super::shown(443, HOST, &renewed)?;
    for client in [&mut encrypted, &mut plain] {
        client.go_on()?;
        client.tells(&[json!(["still held", "after", "more"])])?;
    }
    // The pods die, one after the other.
    near.kill()?;
    near.wait()?;
    for client in [&mut encrypted, &mut plain] {
        client.go_on()?;
        client.tells(&[json!(["one pod gone", ["c2-p1"]])])?;
    }
    far.kill()?;
    far.wait()?;
    for mut client in [encrypted, plain] {
        client.go_on()?;
        client.tells(&[json!(["no pod left", "UNAVAILABLE"])])?;
        client.ends()?;
    }
    Ok(())
}
