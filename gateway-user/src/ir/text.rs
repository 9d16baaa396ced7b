//! The routing model in words, for tables and reviewed text.

use std::fmt;

use super::model::{
    Conditions, Cors, Filter, FixedResponse, Forward, InsertHeader, InsertedValue, PairMatch,
    Redirect, Rewrite, SystemValue, Target, TrafficLimit, WeightedGroup,
};

impl Conditions {
    /// Each condition as what is read and the alternatives, in a fixed order.
    pub fn parts(&self) -> Vec<(String, Vec<String>)> {
        fn texts<T: fmt::Display>(values: &[T]) -> Vec<String> {
            values.iter().map(ToString::to_string).collect()
        }
        let mut parts = vec![
            ("host".to_owned(), texts(&self.hosts)),
            ("path".to_owned(), texts(&self.paths)),
            ("method".to_owned(), self.methods.clone()),
            ("source".to_owned(), texts(&self.sources)),
        ];
        for header in &self.headers {
            parts.push((format!("header {}", header.name), header.values.clone()));
        }
        parts.extend(
            self.queries
                .iter()
                .map(|it| ("query".to_owned(), texts(it))),
        );
        parts.extend(
            self.cookies
                .iter()
                .map(|it| ("cookie".to_owned(), texts(it))),
        );
        for header in &self.response_headers {
            let what = format!("response header {}", header.name);
            parts.push((what, header.values.clone()));
        }
        let statuses = texts(&self.response_statuses);
        parts.push(("response status".to_owned(), statuses));
        parts.retain(|(_, alternatives)| !alternatives.is_empty());
        parts
    }
}

impl fmt::Display for PairMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

impl fmt::Display for WeightedGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = &self.group;
        write!(f, "{}/{}:{}", group.namespace, group.service, group.port)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward(forward) => forward.fmt(f),
            Self::Redirect(redirect) => redirect.fmt(f),
            Self::Respond(FixedResponse {
                code,
                content_type,
                content,
            }) => write!(
                f,
                "respond {code}, {} bytes of {content_type}",
                content.len()
            ),
            Self::Pass => f.write_str("pass the response on"),
        }
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [one] = self.groups.as_slice() {
            one.fmt(f)?;
        } else {
            shares(f, &self.groups)?;
        }
        match self.sticky {
            Some(time) => write!(f, ", a client stays {} s", time.as_secs()),
            None => Ok(()),
        }
    }
}

fn shares(f: &mut fmt::Formatter<'_>, groups: &[WeightedGroup]) -> fmt::Result {
    for (index, it) in groups.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(f, "{comma}{it} {}", it.weight)?;
    }
    Ok(())
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            host,
            port,
            path,
            query,
            code,
        } = self;
        write!(
            f,
            "redirect {code} {protocol}://{host}:{port}{path}?{query}"
        )
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrafficLimit(limit) => limit.fmt(f),
            Self::InsertHeader(insert) => insert.fmt(f),
            Self::RemoveHeader(name) => write!(f, "remove header {name}"),
            Self::Rewrite(rewrite) => rewrite.fmt(f),
            Self::Cors(cors) => cors.fmt(f),
            Self::Mirror(groups) => {
                f.write_str("mirror to ")?;
                shares(f, groups)
            }
        }
    }
}

impl fmt::Display for TrafficLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("limit")?;
        if let Some(rate) = self.per_second {
            write!(f, " {rate}/s")?;
        }
        match self.per_client {
            Some(rate) => write!(f, " {rate}/s for each client"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for InsertHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.overwrite { "set" } else { "insert" };
        write!(f, "{verb} header {}: ", self.name)?;
        match &self.value {
            InsertedValue::Literal(value) => f.write_str(value),
            InsertedValue::Header(name) => write!(f, "<header {name}>"),
            InsertedValue::System(value) => f.write_str(match value {
                SystemValue::ClientPort => "<client port>",
                SystemValue::ClientAddress => "<client address>",
                SystemValue::Protocol => "<protocol>",
                SystemValue::GatewayId => "<gateway id>",
                SystemValue::ListenerPort => "<listener port>",
            }),
        }
    }
}

impl fmt::Display for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rewrite to {}{}?{}", self.host, self.path, self.query)?;
        match &self.captures {
            Some(regex) => write!(f, " by {regex}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Cors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = if self.credentials { "with" } else { "without" };
        write!(
            f,
            "cors for {}, {}, {credentials} credentials, {} s",
            self.origins.join(" "),
            self.methods.join(" "),
            self.max_age_seconds
        )
    }
}
