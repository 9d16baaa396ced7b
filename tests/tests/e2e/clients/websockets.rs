//! WebSocket as Python's package speaks it, client and server.

use std::process::Command;

use anyhow::Result;
use fleetgate_tests::e2e::{
    VIP,
    manifests::{self, Ingress},
    pod_named,
    program::{self, Client},
};
use serde_json::json;
use xtask::{lab::topology::CLIENT_ADDRESS, setup::clients::WEBSOCKETS};

const PORT: u16 = 9000;
const HOST: &str = "chat.example.com";

#[test]
fn websockets_say_and_end_the_same_on_both_sides() -> Result<()> {
    let python = WEBSOCKETS.python()?;
    let (mut gateway, authority, trusted) = super::gateway(HOST)?;
    for (path, text) in manifests::clusters("chat", PORT, "None", |pod| pod == "c2-p1") {
        gateway.write(&path, &text)?;
    }
    let chat = Ingress::new("chat", 80).https(443);
    gateway.write("fleet/chat.yaml", &chat.host(HOST).service("chat").yaml())?;
    let pod = pod_named("c2-p1")?;
    let mut command = Command::new(&python);
    command.args(["-I", "-c", include_str!("websocket_pod.py"), &pod.name]);
    command.args([pod.address.to_string(), PORT.to_string()]);
    program::serve(&mut gateway, &pod, PORT, &command)?;
    gateway.start()?;
    assert_eq!(gateway.problems()?, []);

    let program = include_str!("websocket_client.py");
    let vip = VIP.to_string();
    let trusted = trusted.display().to_string();
    let mut encrypted = Client::start(&python, program, &[&vip, "443", HOST, &trusted])?;
    let mut plain = Client::start(&python, program, &[&vip, "80", HOST])?;
    let told = json!([
        "c2-p1",
        "chat.v2",
        ["permessage-deflate"],
        CLIENT_ADDRESS,
        "a=b; c=d",
        "a=%20b"
    ]);
    for client in [&mut encrypted, &mut plain] {
        client.tells(&[
            json!(["echo", "größer", "00ff", ""]),
            json!(["parts", "in three parts"]),
            json!(["ping"]),
            json!(["large text", true]),
            json!(["large binary", true]),
            json!(["packed", ["permessage-deflate"], true]),
            json!(["told", "chat.v2", told]),
            json!(["pinged", "yes"]),
            json!(["pod leaves", [4001, "shop is shut"]]),
            json!(["pod breaks off", null]),
            json!(["client leaves", [4002, "enough"]]),
            json!(["client breaks off", [1006, ""]]),
            json!(["refused", 403, "not you\n"]),
            json!(["at once", 50]),
        ])?;
    }
    // Rules and a certificate change while connections are open.
    let renewed = authority.server(&[HOST])?;
    gateway.write("fleet/site.yaml", &renewed.secret("site"))?;
    gateway.remove("fleet/chat.yaml")?;
    super::shown(443, HOST, &renewed)?;
    for mut client in [encrypted, plain] {
        client.go_on()?;
        client.tells(&[json!(["still held", 50])])?;
        client.ends()?;
    }
    Ok(())
}
