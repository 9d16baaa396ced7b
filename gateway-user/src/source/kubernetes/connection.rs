//! Requests to one API server, and the client they go by.

use std::{cell::RefCell, fmt, rc::Rc, time::Duration};

use http_body_util::BodyExt as _;
use hyper::{Request, Response, header, http::Uri};
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client,
    client::{Body, ConfigExt as _},
    config::Config,
};
use tokio::time::{Instant, timeout};
use tower::ServiceBuilder;

use super::{
    Timing,
    access::{Access, Fault, chain, sentence},
    wire::Status,
};

/// Largest body of a refusal that is read, in bytes.
const REFUSAL_BYTES: usize = 64 << 10;
/// A kubeconfig is not read again sooner than this: every list and watch of a server may ask for it.
const REREAD: Duration = Duration::from_secs(1);
/// A client that fails and is older than this is made anew.
const RENEW: Duration = Duration::from_secs(30);
/// Longest run of a credential plugin.
const PLUGIN: Duration = Duration::from_secs(10);

/// Why a request gave nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// There is no usable kubeconfig.
    Kubeconfig(Fault),
    /// No connection, or none that answers: what happened.
    Unreachable(String),
    /// The server answers, but does not give this.
    Refused {
        code: u16,
        message: String,
        /// The server asks not to come back earlier.
        retry_after: Option<Duration>,
    },
    /// The server no longer knows the version to go on from.
    Gone,
    /// Not what an API server writes.
    Malformed(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubeconfig(fault) => fault.fmt(f),
            Self::Unreachable(what) => f.write_str(what),
            Self::Refused { code, message, .. } => write!(f, "answers {code}: {message}"),
            Self::Gone => f.write_str("no longer knows the version to go on from"),
            Self::Malformed(what) => write!(f, "answers what cannot be read: {what}"),
        }
    }
}

/// The way to one API server; its credentials may change.
#[derive(Debug)]
pub(super) struct Connection {
    timing: Timing,
    state: RefCell<State>,
    /// One at a time: who asks meanwhile gets the same client.
    making: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    access: Access,
    live: Option<Rc<Live>>,
    /// Something is connected anew: look whether the kubeconfig is another one now.
    doubted: bool,
    /// Something failed.
    failed: bool,
    /// The server refused the credentials.
    refused: bool,
    read_at: Option<Instant>,
    fault: Option<Fault>,
}

/// A client made from one state of a kubeconfig.
pub(super) struct Live {
    client: Client,
    /// Asks whether the server lives, on connections of its own.
    probing: Client,
    /// Another address is another server, whose versions cannot be compared.
    pub(super) url: Uri,
    print: u64,
    made: Instant,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(access: Access, timing: Timing) -> Self {
        Self {
            timing,
            state: RefCell::new(State {
                access,
                live: None,
                doubted: false,
                failed: false,
                refused: false,
                read_at: None,
                fault: None,
            }),
            making: tokio::sync::Mutex::new(()),
        }
    }

    /// Goes by other credentials from now on.
    pub(super) fn replace(&self, access: Access) {
        let mut state = self.state.borrow_mut();
        state.access = access;
        state.live = None;
        state.fault = None;
        state.read_at = None;
    }

    /// The last request ended, or failed like this.
    pub(super) fn doubt(&self, failure: Option<&Failure>) {
        let mut state = self.state.borrow_mut();
        state.doubted = true;
        state.failed |= failure.is_some();
        state.refused |= matches!(failure, Some(Failure::Refused { code: 401, .. }));
    }

    /// Where the server is, if that is known.
    pub(super) fn url(&self) -> Option<String> {
        Some(self.state.borrow().live.as_ref()?.url.to_string())
    }

    /// The client, made anew if the kubeconfig changed since something failed.
    pub(super) async fn live(&self) -> Result<Rc<Live>, Failure> {
        let _making = self.making.lock().await;
        let (access, live, refused, failed) = {
            let mut state = self.state.borrow_mut();
            let recent = state.read_at.is_some_and(|at| at.elapsed() < REREAD);
            match (&state.live, &state.fault) {
                (Some(live), _) if !state.doubted || recent => return Ok(live.clone()),
                (None, Some(fault)) if recent => return Err(Failure::Kubeconfig(fault.clone())),
                _ => {}
            }
            state.read_at = Some(Instant::now());
            state.doubted = false;
            let refused = std::mem::take(&mut state.refused);
            let failed = std::mem::take(&mut state.failed);
            (state.access.clone(), state.live.clone(), refused, failed)
        };
        // Credentials of a plugin change unseen.
        let aged = |live: &Rc<Live>| failed && live.made.elapsed() >= RENEW;
        let live = live.filter(|live| !refused && !aged(live));
        let made = self.make(&access, live).await;
        let mut state = self.state.borrow_mut();
        if state.access != access {
            // Replaced meanwhile; whoever asks next gets the new one.
            return made.map_err(Failure::Kubeconfig);
        }
        match made {
            Ok(live) => {
                state.fault = None;
                state.live = Some(live.clone());
                Ok(live)
            }
            // A kubeconfig that went bad under a client that may still serve: the client stays.
            Err(fault) => match state.live.clone() {
                Some(live) => Ok(live),
                None => {
                    state.fault = Some(fault.clone());
                    Err(Failure::Kubeconfig(fault))
                }
            },
        }
    }

    async fn make(&self, access: &Access, had: Option<Rc<Live>>) -> Result<Rc<Live>, Fault> {
        let (config, print) = access.load()?;
        if let Some(had) = had
            && had.print == print
        {
            return Ok(had);
        }
        let unusable = |message: String| Fault {
            field: "users".to_owned(),
            message,
            remedy: "check certificates, keys and credential plugin of the kubeconfig",
        };
        let timing = self.timing.clone();
        let url = config.cluster_url.clone();
        // A credential plugin runs here, and blocks while it does.
        let making = tokio::task::spawn_blocking(move || {
            Ok::<_, kube::Error>((client(&config, &timing)?, client(&config, &timing)?))
        });
        let (client, probing) = timeout(PLUGIN, making)
            .await
            .map_err(|_| unusable("the credential plugin does not end".to_owned()))?
            .map_err(|error| unusable(sentence(&error.to_string())))?
            .map_err(|error| unusable(format!("no client can be made: {}", chain(&error))))?;
        Ok(Rc::new(Live {
            client,
            probing,
            url,
            print,
            made: Instant::now(),
        }))
    }
}

impl Live {
    /// Sends a GET; returns when the head of a good answer is there.
    pub(super) async fn get(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<Response<Body>, Failure> {
        let response = send(&self.client, path, patience).await?;
        let code = response.status().as_u16();
        if response.status().is_success() {
            return Ok(response);
        }
        let asked = response.headers().get(header::RETRY_AFTER).cloned();
        let seconds = asked.and_then(|it| it.to_str().ok()?.trim().parse().ok());
        let body = read(response, REFUSAL_BYTES, patience)
            .await
            .unwrap_or_default();
        let status = Status::of(code, &body);
        Err(refusal(&status, seconds.map(Duration::from_secs)))
    }

    /// Whether the server lives. A refusal is a sign of life, unless something before the server speaks for it.
    pub(super) async fn probe(&self, patience: Duration) -> Result<(), Failure> {
        let response = send(&self.probing, "/version", patience).await?;
        let code = response.status().as_u16();
        // The body has to be read for the connection to be used again.
        let body = read(response, REFUSAL_BYTES, patience).await?;
        if code < 500 {
            return Ok(());
        }
        Err(refusal(&Status::of(code, &body), None))
    }
}

/// A status as the failure it is.
pub(super) fn refusal(status: &Status, asked: Option<Duration>) -> Failure {
    if status.code == 410 {
        return Failure::Gone;
    }
    Failure::Refused {
        code: status.code,
        message: status.message.clone(),
        retry_after: asked.or_else(|| status.retry_after()),
    }
}

async fn send(client: &Client, path: &str, patience: Duration) -> Result<Response<Body>, Failure> {
    let request = Request::get(path)
        .header(header::ACCEPT, "application/json")
        .header(
            header::USER_AGENT,
            concat!("fleetgate/", env!("CARGO_PKG_VERSION")),
        )
        .body(Body::empty())
        .map_err(|error| Failure::Malformed(chain(&error)))?;
    match timeout(patience, client.send(request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(Failure::Unreachable(chain(&error))),
        Err(_) => Err(Failure::Unreachable(format!(
            "no answer within {} ms",
            patience.as_millis()
        ))),
    }
}

/// A body of bounded size, that does not stand still.
pub(super) async fn read(
    response: Response<Body>,
    most: usize,
    patience: Duration,
) -> Result<Vec<u8>, Failure> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    loop {
        match timeout(patience, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                if bytes.len() + data.len() > most {
                    return Err(Failure::Malformed(format!(
                        "more than {most} bytes at once"
                    )));
                }
                bytes.extend_from_slice(&data);
            }
            Ok(Some(Err(error))) => return Err(Failure::Unreachable(chain(&error))),
            Ok(None) => return Ok(bytes),
            Err(_) => {
                return Err(Failure::Unreachable(format!(
                    "an answer stood still for {} ms",
                    patience.as_millis()
                )));
            }
        }
    }
}

/// Like the library's own client, with keep-alive on its connections, and without repeating or logging by itself:
/// requests are counted, and logged once per change, by whoever sends them.
fn client(config: &Config, timing: &Timing) -> Result<Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(timing.connect));
    tcp.set_keepalive(Some(timing.connect));
    tcp.set_keepalive_interval(Some(timing.connect));
    tcp.set_keepalive_retries(Some(3));
    tcp.set_tcp_user_timeout(Some(timing.connect * 3));
    let mut http = Http::builder(TokioExecutor::new());
    http.pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(2);
    let http = http.build(config.rustls_https_connector_with_connector(tcp)?);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(tower::BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}
