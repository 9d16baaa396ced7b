//! A recording origin, a raw client, and a proxy with a small table.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use gateway_user::{
    ir::{
        Affinity, Backend, ClusterId, Conditions, Group, GroupName, Ir, Listener, ListenerName,
        ListenerProtocol, ListenerSettings, Rule, ServiceName, Split, Steering, SteeringMode,
        Touched,
    },
    proxy::{Proxy, ProxyConfig, Router, StatsSnapshot},
    tls::Servers,
};

/// What a backend received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<String>,
    /// The body arrived to its end.
    pub(crate) complete: bool,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Vec<String> {
        header_values(&self.head, name)
    }

    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

fn header_values(head: &str, name: &str) -> Vec<String> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

/// A backend on loopback; one thread per connection.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
    }
}

pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

impl Origin {
    /// Answers every complete request with these bytes.
    pub(crate) fn fixed(reply: impl Into<Vec<u8>>) -> Self {
        let reply = reply.into();
        Self::answering(move |_, stream| stream.write_all(&reply))
    }

    /// Reads each request whole, records it, and lets `answer` write; an error of it ends the connection.
    pub(crate) fn answering(
        answer: impl Fn(&Seen, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::raw(move |seen, stream| {
            let mut reader = BufReader::new(stream.try_clone()?);
            loop {
                let mut request = Seen { ..Seen::default() };
                request.head = read_head(&mut reader)?;
                let outcome = read_body(&mut reader, &mut request);
                request.complete = outcome.is_ok();
                seen.lock().unwrap().push(request.clone());
                outcome?;
                answer(&request, stream)?;
            }
        })
    }

    /// Full control over each connection.
    pub(crate) fn raw(
        serve: impl Fn(&Mutex<Vec<Seen>>, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let origin = Self {
            address,
            seen: Arc::default(),
            connections: Arc::default(),
            ended: Arc::default(),
            stop: Arc::default(),
        };
        let (seen, stop) = (Arc::clone(&origin.seen), Arc::clone(&origin.stop));
        let (connections, ended) = (Arc::clone(&origin.connections), Arc::clone(&origin.ended));
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                stream.set_nodelay(true).unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_secs(30)))
                    .unwrap();
                connections.fetch_add(1, SeqCst);
                let (seen, serve, ended) =
                    (Arc::clone(&seen), Arc::clone(&serve), Arc::clone(&ended));
                thread::spawn(move || {
                    let _ = serve(&seen, &mut stream);
                    ended.fetch_add(1, SeqCst);
                });
            }
        });
        origin
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Connections that were opened and have ended.
    pub(crate) fn ended(&self) -> usize {
        self.ended.load(SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

pub(crate) fn read_head(reader: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == b"\r\n" {
            return Ok(head);
        }
        head.push_str(&String::from_utf8_lossy(&line));
    }
}

fn read_body(reader: &mut impl BufRead, message: &mut Seen) -> io::Result<()> {
    if let Some(length) = message.header("content-length").first() {
        let length: u64 = length.parse().map_err(|_| io::ErrorKind::InvalidData)?;
        let read = reader.take(length).read_to_end(&mut message.body)?;
        return if read as u64 == length {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        };
    }
    if message.header("transfer-encoding").is_empty() {
        return Ok(());
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size =
            u64::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        if size == 0 {
            let trailers = read_head(reader)?;
            message.trailers = trailers
                .lines()
                .map(|line| line.trim().to_owned())
                .collect();
            return Ok(());
        }
        if reader.take(size).read_to_end(&mut message.body)? as u64 != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        reader.read_line(&mut String::new())?;
    }
}

/// A response as the client got it.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<String>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Vec<String> {
        header_values(&self.head, name)
    }

    pub(crate) fn reason(&self) -> String {
        self.header("x-fleetgate-reason").join(",")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One client connection.
#[derive(Debug)]
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(proxy: &Proxy) -> Self {
        let stream = TcpStream::connect(proxy.local_addr()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self {
            reader: BufReader::new(stream),
        }
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        self.reader.get_mut()
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream().write_all(bytes.as_ref()).unwrap();
    }

    /// One response, by its own framing; without any, to the end of the connection.
    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        self.reply_to("GET")
    }

    pub(crate) fn reply_to(&mut self, method: &str) -> io::Result<Reply> {
        let head = read_head(&mut self.reader)?;
        let status: u16 = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or(io::ErrorKind::InvalidData)?;
        let mut message = Seen {
            head,
            ..Seen::default()
        };
        let framed = !message.header("content-length").is_empty()
            || !message.header("transfer-encoding").is_empty();
        if method == "HEAD" || status == 204 || status == 304 || status < 200 {
        } else if framed {
            read_body(&mut self.reader, &mut message)?;
        } else {
            self.reader.read_to_end(&mut message.body)?;
        }
        Ok(Reply {
            status,
            head: message.head,
            body: message.body,
            trailers: message.trailers,
        })
    }

    pub(crate) fn get(&mut self, path: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: demo\r\n\r\n"));
        self.reply().unwrap()
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        // A reset after the last reply is an end too.
        let _ = self.reader.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn read_some(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }
}

pub(crate) fn backend(cluster: &str, address: SocketAddr, weight: u32) -> Backend {
    Backend {
        cluster: ClusterId(cluster.into()),
        address,
        pod: address.to_string().into(),
        weight,
    }
}

pub(crate) fn group(name: &str, backends: Vec<Backend>) -> Arc<Group> {
    let service = ServiceName {
        namespace: "demo".into(),
        name: name.into(),
        port: "80".into(),
    };
    let name = GroupName {
        namespace: "demo".into(),
        ingress: "web".into(),
        service: name.into(),
        port: "80".into(),
    };
    Arc::new(Group {
        name,
        service,
        policy: Arc::default(),
        split: Split::Replicas,
        affinity: Affinity::None,
        affinity_seconds: 0,
        backends,
        idle: Vec::new(),
        failing: Vec::new(),
    })
}

/// A rule and the one group that it names.
#[derive(Clone, Debug)]
pub(crate) struct Routed {
    pub(crate) conditions: Conditions,
    pub(crate) group: Arc<Group>,
}

pub(crate) fn rule(group: Arc<Group>) -> Routed {
    Routed {
        conditions: Conditions::default(),
        group,
    }
}

/// What the listener of a test says.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) settings: ListenerSettings,
    pub(crate) rules: Vec<Routed>,
}

impl Site {
    fn ir(&self, port: u16) -> Ir {
        let rule = |it: &Routed| {
            Arc::new(Rule {
                conditions: it.conditions.clone(),
                ..Rule::forwarding(it.group.name.clone(), "spec.rules[0]")
            })
        };
        let name = ListenerName {
            gateway: "demo".into(),
            port,
            protocol: ListenerProtocol::Http,
        };
        let listener = Listener {
            name: name.clone(),
            addresses: Vec::new(),
            settings: Arc::new(self.settings.clone()),
            refused: None,
            rules: self.rules.iter().map(rule).collect(),
            passthrough: Vec::new(),
            steering: Steering {
                mode: SteeringMode::Request,
                reason: "test".into(),
            },
        };
        let groups = self.rules.iter().map(|it| &it.group);
        Ir {
            listeners: [(name, Arc::new(listener))].into(),
            groups: groups.map(|it| (it.name.clone(), Arc::clone(it))).collect(),
        }
    }
}

/// A proxy and the listener it serves on its own address.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) proxy: Proxy,
    site: Site,
    ir: Ir,
    router: Router,
}

impl Gateway {
    pub(crate) fn start(rules: Vec<Routed>) -> Self {
        Self::with(
            ProxyConfig {
                workers: 2,
                ..ProxyConfig::default()
            },
            rules,
        )
    }

    pub(crate) fn with(config: ProxyConfig, rules: Vec<Routed>) -> Self {
        let settings = ListenerSettings {
            request_timeout: Duration::from_secs(10),
            ..ListenerSettings::default()
        };
        let mut gateway = Self {
            proxy: Proxy::start(config).unwrap(),
            site: Site { settings, rules },
            ir: Ir::default(),
            router: Router::default(),
        };
        gateway.publish();
        gateway
    }

    /// A gateway whose only rule sends everything to one origin.
    pub(crate) fn to(origin: &Origin) -> Self {
        Self::start(vec![rule(group(
            "web",
            vec![backend("c1", origin.address, 1)],
        ))])
    }

    /// Changes the listener and swaps the table.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Site)) {
        change(&mut self.site);
        self.publish();
    }

    /// As the agent does: one router goes from table to table.
    pub(crate) fn publish(&mut self) {
        let before = std::mem::take(&mut self.ir);
        self.ir = self.site.ir(self.proxy.local_addr().port());
        let mut touched = Touched::all(&before);
        touched.listeners.extend(self.ir.listeners.keys().cloned());
        touched.groups.extend(self.ir.groups.keys().cloned());
        let vips = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let table = self
            .router
            .update(&self.ir, &touched, &vips, &Servers::default());
        self.proxy.update(table);
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.proxy)
    }

    pub(crate) fn stats(&self) -> StatsSnapshot {
        self.proxy.stats().snapshot()
    }
}

/// Waits until it holds, at most ten seconds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// An address nobody listens on.
pub(crate) fn closed_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
}
