//! Field names that mean something to the proxy.

use http::HeaderName;

macro_rules! names {
    ($($variant:ident $text:literal,)*) => {
        /// A field name; all that mean nothing here are `Other`.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(in crate::proxy) enum Name {
            /// Any other.
            Other,
            /// A claim, or what delimits a body, but for `_` in the place of `-`.
            Disguised,
            $(#[doc = $text] $variant,)*
        }

        impl Name {
            /// Every name with a text.
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$variant),*];

            /// As HTTP/2's messages have it; `None` for `Other` and `Disguised`.
            pub(in crate::proxy) fn header(self) -> Option<HeaderName> {
                match self {
                    Self::Other | Self::Disguised => None,
                    $(Self::$variant => {
                        const HEADER: HeaderName = HeaderName::from_static($text);
                        Some(HEADER)
                    })*
                }
            }

            /// In lower case; empty for `Other` and `Disguised`.
            pub(in crate::proxy) const fn text(self) -> &'static str {
                match self {
                    Self::Other | Self::Disguised => "",
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

names! {
    AcceptEncoding "accept-encoding",
    AccessControlAllowCredentials "access-control-allow-credentials",
    AccessControlAllowHeaders "access-control-allow-headers",
    AccessControlAllowMethods "access-control-allow-methods",
    AccessControlAllowOrigin "access-control-allow-origin",
    AccessControlExposeHeaders "access-control-expose-headers",
    AccessControlMaxAge "access-control-max-age",
    AccessControlRequestMethod "access-control-request-method",
    Allow "allow",
    AltSvc "alt-svc",
    CacheControl "cache-control",
    Connection "connection",
    ContentEncoding "content-encoding",
    ContentLength "content-length",
    ContentRange "content-range",
    ContentType "content-type",
    Cookie "cookie",
    Date "date",
    Etag "etag",
    Expect "expect",
    Host "host",
    Http2Settings "http2-settings",
    KeepAlive "keep-alive",
    Location "location",
    Origin "origin",
    ProxyConnection "proxy-connection",
    Referer "referer",
    RetryAfter "retry-after",
    Server "server",
    SetCookie "set-cookie",
    SlbId "slb-id",
    Te "te",
    Traceparent "traceparent",
    Tracestate "tracestate",
    Trailer "trailer",
    TransferEncoding "transfer-encoding",
    Upgrade "upgrade",
    UserAgent "user-agent",
    Vary "vary",
    ForwardedClientPort "x-forwarded-client-srcport",
    ForwardedCertFingerprint "x-forwarded-clientcert-fingerprint",
    ForwardedCertIssuer "x-forwarded-clientcert-issuerdn",
    ForwardedCertSubject "x-forwarded-clientcert-subjectdn",
    ForwardedCertVerify "x-forwarded-clientcert-clientverify",
    ForwardedFor "x-forwarded-for",
    ForwardedHost "x-forwarded-host",
    ForwardedPort "x-forwarded-port",
    ForwardedProto "x-forwarded-proto",
    Reason "x-fleetgate-reason",
}

impl Name {
    /// Whether it tells who a client is, which only the gateway knows.
    pub(in crate::proxy) fn is_identity(self) -> bool {
        matches!(
            self,
            Self::ForwardedCertFingerprint
                | Self::ForwardedCertIssuer
                | Self::ForwardedCertSubject
                | Self::ForwardedCertVerify
        )
    }

    /// Whether it says who asks or by which way: a backend that merges trailers with the other fields would believe it.
    pub(in crate::proxy) fn is_claim(self) -> bool {
        self.is_identity()
            || matches!(
                self,
                Self::Disguised
                    | Self::Cookie
                    | Self::SetCookie
                    | Self::SlbId
                    | Self::ForwardedFor
                    | Self::ForwardedHost
                    | Self::ForwardedPort
                    | Self::ForwardedProto
                    | Self::ForwardedClientPort
            )
    }

    /// Whether a CGI or WSGI pod takes a field for this one, and believes what only the proxy says.
    fn is_disguise(self, name: &[u8]) -> bool {
        let told = matches!(self, Self::ContentLength | Self::TransferEncoding) || self.is_claim();
        told && reads_as(name, self.text().as_bytes())
    }

    /// Compares without regard to case.
    pub(in crate::proxy) fn of(name: &[u8]) -> Self {
        use Name::*;
        // Length and first letter leave one or two to compare with.
        let candidates: &[Self] = match (name.len(), name.first().map(u8::to_ascii_lowercase)) {
            (2, Some(b't')) => &[Te],
            (4, Some(b'h')) => &[Host],
            (4, Some(b'd')) => &[Date],
            (4, Some(b'e')) => &[Etag],
            (4, Some(b'v')) => &[Vary],
            (5, Some(b'a')) => &[Allow],
            (6, Some(b'c')) => &[Cookie],
            (6, Some(b'e')) => &[Expect],
            (6, Some(b'o')) => &[Origin],
            (6, Some(b's')) => &[Server, SlbId],
            (7, Some(b'a')) => &[AltSvc],
            (7, Some(b'r')) => &[Referer],
            (7, Some(b't')) => &[Trailer],
            (7, Some(b'u')) => &[Upgrade],
            (8, Some(b'l')) => &[Location],
            (10, Some(b'c')) => &[Connection],
            (10, Some(b'k')) => &[KeepAlive],
            (10, Some(b's')) => &[SetCookie],
            (10, Some(b't')) => &[Tracestate],
            (10, Some(b'u')) => &[UserAgent],
            (11, Some(b'r')) => &[RetryAfter],
            (11, Some(b't')) => &[Traceparent],
            (12, Some(b'c')) => &[ContentType],
            (13, Some(b'c')) => &[CacheControl, ContentRange],
            (14, Some(b'c')) => &[ContentLength],
            (14, Some(b'h')) => &[Http2Settings],
            (15, Some(b'a')) => &[AcceptEncoding],
            (15, Some(b'x')) => &[ForwardedFor],
            (16, Some(b'c')) => &[ContentEncoding],
            (16, Some(b'p')) => &[ProxyConnection],
            (16, Some(b'x')) => &[ForwardedHost, ForwardedPort],
            (17, Some(b't')) => &[TransferEncoding],
            (17, Some(b'x')) => &[ForwardedProto],
            (18, Some(b'x')) => &[Reason],
            (22, Some(b'a')) => &[AccessControlMaxAge],
            (26, Some(b'x')) => &[ForwardedClientPort],
            (27, Some(b'a')) => &[AccessControlAllowOrigin],
            (28, Some(b'a')) => &[AccessControlAllowHeaders, AccessControlAllowMethods],
            (29, Some(b'a')) => &[AccessControlExposeHeaders, AccessControlRequestMethod],
            (31, Some(b'x')) => &[ForwardedCertIssuer],
            (32, Some(b'x')) => &[ForwardedCertSubject],
            (34, Some(b'x')) => &[ForwardedCertFingerprint],
            (35, Some(b'x')) => &[ForwardedCertVerify],
            (32, Some(b'a')) => &[AccessControlAllowCredentials],
            _ => return Other,
        };
        let found = candidates
            .iter()
            .find(|it| name.eq_ignore_ascii_case(it.text().as_bytes()));
        match found {
            Some(found) => *found,
            None if candidates.iter().any(|it| it.is_disguise(name)) => Disguised,
            None => Other,
        }
    }
}

/// Whether a name is this one where `_` is the same as `-` (RFC 3875 section 4.1.18), without regard to case.
pub(super) fn reads_as(name: &[u8], meant: &[u8]) -> bool {
    let same = |(byte, meant): (&u8, &u8)| {
        byte.eq_ignore_ascii_case(meant) || (*byte == b'_' && *meant == b'-')
    };
    name.len() == meant.len() && name.iter().zip(meant).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_whatever_case() {
        for name in Name::ALL {
            assert_eq!(Name::of(name.text().as_bytes()), *name);
            assert_eq!(name.header().expect("a name"), name.text());
            assert_eq!(Name::of(name.text().to_ascii_uppercase().as_bytes()), *name);
        }
        for other in [
            "",
            "x",
            "hosts",
            "hast",
            "x-forwarded-foo",
            "user_agent",
            "x_one",
        ] {
            assert_eq!(Name::of(other.as_bytes()), Name::Other, "{other}");
        }
    }

    #[test]
    fn a_claim_with_underscores_is_one_in_disguise() {
        for name in [
            "x_forwarded_for",
            "X-Forwarded_Proto",
            "SLB_ID",
            "content_length",
        ] {
            assert_eq!(Name::of(name.as_bytes()), Name::Disguised, "{name}");
        }
    }
}
