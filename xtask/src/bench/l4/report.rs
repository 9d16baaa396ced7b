//! The result for people: tables, and the page in `docs/`.

use serde_json::Value;

use crate::{
    bench::bars::{self, Bar, Table, figure, markdown},
    console,
};

/// All tables of the result, for a terminal.
pub(super) fn tables(result: &Value) -> String {
    let all = [
        nanos(result),
        rate(result),
        bulk(result),
        connections(result),
    ];
    let shown = all.iter().filter(|(_, rows)| !rows.is_empty());
    let text: String = shown
        .map(|(header, rows)| console::table(header, rows) + "\n\n")
        .collect();
    text + &opening(result).unwrap_or_default()
}

/// What a new flow costs, in a sentence.
fn opening(result: &Value) -> Option<String> {
    let opening = &result["opening"];
    Some(format!(
        "A packet that opens a flow: {} ns more than an empty program ({} flows into an empty table). The table has room \
         for {} entries, two for each flow, and takes {:.0} MiB.\n",
        figure(opening.get("ns")?, 0),
        opening["flows"],
        opening["table_entries"],
        opening["table_mib"].as_f64()?,
    ))
}

/// The judged bars.
pub(super) fn bars(judged: &[Bar]) -> String {
    let (header, rows) = bars::table(judged);
    console::table(&header, &rows)
}

/// `docs/bench-l4.md`.
pub(super) fn page(result: &Value, judged: &[Bar]) -> String {
    let machine = &result["machine"];
    let text = |name: &str| machine[name].as_str().unwrap_or("?").to_owned();
    let mut page = format!(
        "# What the kernel path costs\n\n\
         Written by `cargo xtask bench l4 --chart`; all figures are of one run: {}, {} CPUs, Linux {}, load {} before it.\n\
         Alternating rounds of all contenders; median (smallest to largest), ratios round by round.\n\n\
         ![The same as a chart](bench-l4.svg)\n",
        text("cpu"),
        machine["cpus"],
        text("kernel"),
        text("load"),
    );
    for (title, about, table) in [
        (
            "Nanoseconds per packet of an established flow",
            "Run time of the XDP programs by the kernel's own statistics (`run_time_ns` by `run_cnt`), less that of an \
             empty program in the same round. `reference` parses the packet, looks its flow up in the same table, swaps \
             the MAC addresses and transmits. `touch` also notes in the entry when the flow spoke. `fleetgate` is full \
             NAT with checksums, counters and the checks of a flow's life. Frames of random flows; every byte of every \
             frame is written; a round counts only if every frame met the program, was translated and came back.",
            nanos(result),
        ),
        (
            "Packets per second",
            "60-byte UDP frames of random flows from a generator at XDP through the gateway to where they end, all on one \
             CPU. Timed by the kernel's clock from the first that is made to the last that arrives. Net: less \
             generating and dropping them without a gateway. nftables does the same NAT (DNAT and SNAT); its table is limited to 262144 flows on this machine.",
            rate(result),
        ),
        (
            "Bulk TCP",
            "Gbit/s on veth with GSO. Fleetgate is the agent with manifests, TC on both sides. HAProxy is in TCP mode with \
             a thread for each CPU. `zerocopy`: ends that copy nothing (`sendfile`, `MSG_TRUNC`), which the bars are judged \
             by. `iperf3`: ends that copy twice and share the CPUs with the gateway, so that plain routing is held up as well.",
            bulk(result),
        ),
        (
            "Connections per second",
            "Handshake, a word from the pod, and both ends close. `xdp`: both ends are XDP programs that answer each segment \
             with the next, which the bar is judged by. `sockets`: ends in user space, which share the CPUs with the gateway \
             and take most of the time, so that plain routing is held up as well.",
            connections(result),
        ),
        ("Bars", "", bars::table(judged)),
    ] {
        if !table.1.is_empty() {
            page += &format!("\n## {title}\n\n");
            if !about.is_empty() {
                page += &format!("{about}\n\n");
            }
            page += &markdown(&table);
            if title.starts_with("Nano") {
                page += &opening(result).map_or_else(String::new, |text| format!("\n{text}"));
            }
        }
    }
    page
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn nanos(result: &Value) -> Table {
    let row = |case: &Value| {
        let text = |name: &str| case[name].as_str().unwrap_or("?").to_owned();
        vec![
            case["flows"].to_string(),
            format!("{} {}", text("proto"), text("way")),
            figure(&case["reference"], 0),
            figure(&case["touch"], 0),
            figure(&case["fleetgate"], 0),
            figure(&case["ratio"], 2),
            format!("{:.2}", case["ratio_of_mins"].as_f64().unwrap_or(f64::NAN)),
            case["rounds"].to_string(),
        ]
    };
    (
        vec![
            "flows",
            "packets",
            "reference, ns",
            "touch, ns",
            "fleetgate, ns",
            "ratio",
            "of minima",
            "rounds",
        ],
        array(&result["ns"]).iter().map(row).collect(),
    )
}

fn rate(result: &Value) -> Table {
    let rows = array(&result["pps"]).iter().flat_map(|rates| {
        let row = |line: &Value| {
            let who = line["who"].as_str().unwrap_or("?");
            // By nftables and by routing, where it is ours.
            let by = |other: &str| {
                let short = who.trim_start_matches("fleetgate_");
                let ratio = &rates[format!("{short}_by_{other}")];
                if ratio.is_null() {
                    String::new()
                } else {
                    figure(ratio, 2)
                }
            };
            vec![
                rates["flows"].to_string(),
                who.to_owned(),
                figure(&line["mpps"], 3),
                figure(&line["net_ns"], 0),
                by("nftables"),
                by("routed"),
                line["rounds"].to_string(),
            ]
        };
        array(&rates["contenders"])
            .iter()
            .map(row)
            .collect::<Vec<_>>()
    });
    (
        vec![
            "flows",
            "gateway",
            "million packets/s",
            "net ns/packet",
            "by nftables",
            "by routed",
            "rounds",
        ],
        rows.collect(),
    )
}

fn bulk(result: &Value) -> Table {
    let rows = array(&result["tcp"]).iter().flat_map(|line| {
        let streams = line["streams"].to_string();
        let ends = line["ends"].as_str().unwrap_or("?").to_owned();
        contenders(line, "gbps", 2)
            .into_iter()
            .map(move |row| [vec![streams.clone(), ends.clone()], row].concat())
    });
    (
        vec!["streams", "ends", "gateway", "Gbit/s", "fleetgate by it"],
        rows.collect(),
    )
}

fn connections(result: &Value) -> Table {
    let rows = array(&result["conn"]).iter().flat_map(|line| {
        let ends = line["ends"].as_str().unwrap_or("?").to_owned();
        contenders(line, "per_second", 0)
            .into_iter()
            .map(move |row| [vec![ends.clone()], row].concat())
    });
    (
        vec!["ends", "gateway", "connections/s", "fleetgate by it"],
        rows.collect(),
    )
}

fn contenders(line: &Value, unit: &str, digits: usize) -> Vec<Vec<String>> {
    let Some(all) = line[unit].as_object() else {
        return Vec::new();
    };
    let row = |(who, value): (&String, &Value)| {
        let by = &line["fleetgate_by"][who];
        let by = if by.is_null() {
            String::new()
        } else {
            figure(by, 2)
        };
        vec![who.clone(), figure(value, digits), by]
    };
    all.iter().map(row).collect()
}
