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
        Affinity, Backend, ClusterId, Conditions, Direction, Filter, Group, GroupName, Ir,
        Listener, ListenerName, ListenerProtocol, ListenerSettings, Policy, Rule, ServiceName,
        Split, Steering, SteeringMode, Target, Touched,
    },
    proxy::{
        Proxy, ProxyConfig, Router, StatsSnapshot, access_log::AccessLog, trace::export::Traces,
    },
    tls::{Servers, servers::Secrets},
};
use socket2::{Domain, Socket, Type};

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

pub(crate) fn read_body(reader: &mut impl BufRead, message: &mut Seen) -> io::Result<()> {
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

/// One client connection, plain or through what encrypts.
#[derive(Debug)]
pub(crate) struct Client<S = TcpStream> {
    reader: BufReader<S>,
}

/// A connection that waits for nothing for more than twenty seconds.
pub(crate) fn dial(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect(address).unwrap())
}

fn patient(stream: TcpStream) -> TcpStream {
    let patience = Some(Duration::from_secs(20));
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(patience).unwrap();
    stream.set_write_timeout(patience).unwrap();
    stream
}

impl Client {
    pub(crate) fn connect(proxy: &Proxy) -> Self {
        Self::over(dial(proxy.local_addr()))
    }

    /// A client with an address of its own, of 127.0.0.0/8.
    pub(crate) fn from(address: Ipv4Addr, proxy: &Proxy) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let own = SocketAddr::from((address, 0));
        socket.bind(&own.into()).unwrap();
        socket.connect(&proxy.local_addr().into()).unwrap();
        Self::over(patient(socket.into()))
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self {
            reader: BufReader::new(stream),
        }
    }

    pub(crate) fn stream(&mut self) -> &mut S {
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
        self.get_with(path, "")
    }

    /// With further field lines, each ended by CRLF.
    pub(crate) fn get_with(&mut self, path: &str, fields: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: demo\r\n{fields}\r\n"));
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

/// The same, with its pods treated as `policy` says.
pub(crate) fn treated(name: &str, backends: Vec<Backend>, policy: Policy) -> Arc<Group> {
    Arc::new(Group {
        policy: Arc::new(policy),
        ..Group::clone(&group(name, backends))
    })
}

/// A rule and the groups that it names.
#[derive(Clone, Debug)]
pub(crate) struct Routed {
    pub(crate) conditions: Conditions,
    pub(crate) group: Arc<Group>,
    pub(crate) direction: Direction,
    pub(crate) filters: Vec<Filter>,
    /// `None`: everything goes to the group.
    pub(crate) target: Option<Target>,
    /// Further groups, of the target or of a mirror.
    pub(crate) others: Vec<Arc<Group>>,
}

pub(crate) fn rule(group: Arc<Group>) -> Routed {
    Routed {
        conditions: Conditions::default(),
        group,
        direction: Direction::Request,
        filters: Vec::new(),
        target: None,
        others: Vec::new(),
    }
}

/// A rule with filters.
pub(crate) fn filtered(group: Arc<Group>, filters: Vec<Filter>) -> Routed {
    Routed {
        filters,
        ..rule(group)
    }
}

/// A rule that needs no backend.
pub(crate) fn answered(target: Target) -> Routed {
    Routed {
        target: Some(target),
        ..rule(group("none", Vec::new()))
    }
}

/// What the listener of a test says.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) protocol: ListenerProtocol,
    pub(crate) settings: ListenerSettings,
    pub(crate) rules: Vec<Routed>,
    /// Rules that come before those, as they are.
    pub(crate) first: Vec<Rule>,
}

impl Site {
    fn ir(&self, port: u16) -> Ir {
        let rule = |(at, it): (usize, &Routed)| {
            let place = format!("spec.rules[{at}]");
            let forwarding = Rule::forwarding(it.group.name.clone(), place);
            Arc::new(Rule {
                conditions: it.conditions.clone(),
                direction: it.direction,
                filters: it.filters.clone(),
                target: it.target.clone().unwrap_or(forwarding.target.clone()),
                ..forwarding
            })
        };
        let name = ListenerName {
            gateway: "demo".into(),
            port,
            protocol: self.protocol,
        };
        let first = self.first.iter().cloned().map(Arc::new);
        let listener = Listener {
            name: name.clone(),
            addresses: Vec::new(),
            settings: Arc::new(self.settings.clone()),
            refused: None,
            rules: first
                .chain(self.rules.iter().enumerate().map(rule))
                .collect(),
            passthrough: Vec::new(),
            steering: Steering {
                mode: SteeringMode::Request,
                reason: "test".into(),
            },
        };
        let named = |it: &Routed| [vec![it.group.clone()], it.others.clone()].concat();
        let groups = self.rules.iter().flat_map(named);
        Ir {
            listeners: [(name, Arc::new(listener))].into(),
            groups: groups.map(|it| (it.name.clone(), it)).collect(),
        }
    }
}

/// A proxy and the listener it serves on its own address.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) proxy: Proxy,
    /// Of the listener's certificates and authorities.
    pub(crate) secrets: Secrets,
    site: Site,
    ir: Ir,
    servers: Servers,
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
        Self::observed(config, rules, &AccessLog::off(), &Traces::off())
    }

    /// The same, with a log and traces of requests.
    pub(crate) fn observed(
        config: ProxyConfig,
        rules: Vec<Routed>,
        log: &AccessLog,
        traces: &Traces,
    ) -> Self {
        let settings = ListenerSettings {
            request_timeout: Duration::from_secs(10),
            ..ListenerSettings::default()
        };
        let mut gateway = Self {
            proxy: Proxy::start_observed(config, log, traces).unwrap(),
            secrets: Secrets::new(),
            site: Site {
                protocol: ListenerProtocol::Http,
                settings,
                rules,
                first: Vec::new(),
            },
            ir: Ir::default(),
            servers: Servers::default(),
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
        self.servers
            .update(&self.ir, &touched.listeners, &self.secrets);
        let table = self.router.update(&self.ir, &touched, &vips, &self.servers);
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
