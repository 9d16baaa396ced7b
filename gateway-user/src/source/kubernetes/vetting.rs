//! What a kubeconfig out of a Secret may say: whoever can write Secrets must not gain the node by it.

use kube::config::Kubeconfig;

use super::access::{FILE_BYTES, Fault, sentence};

/// Reads a kubeconfig that is not the operator's own.
///
/// Refused are credential plugins, which run programs, and paths, which read files of the node and would send them to
/// a server of the author's choice. Also where no context uses them: a kubeconfig that is meant for here has neither.
pub(super) fn read(bytes: &[u8]) -> Result<Kubeconfig, Fault> {
    let unusable = |message: String| Fault {
        field: "kubeconfig".to_owned(),
        message,
        remedy: "store one kubeconfig as YAML or JSON, with all certificates and keys inside it",
    };
    if bytes.len() > FILE_BYTES {
        return Err(unusable("it is larger than 1 MiB".to_owned()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| unusable("it is not text".to_owned()))?;
    let kubeconfig: Kubeconfig =
        serde_saphyr::from_str_with_options(text, bounds()).map_err(|error| {
            // The parser's own words may repeat the text around the place, which can be a key.
            let line = error.without_snippet().location().map(|at| at.line());
            unusable(match line {
                Some(line) => format!("it cannot be read as a kubeconfig, see line {line}"),
                None => "it cannot be read as a kubeconfig".to_owned(),
            })
        })?;
    vet(&kubeconfig)?;
    Ok(kubeconfig)
}

fn bounds() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 32,
            flow_nesting_limit: 32,
            max_nodes: 20_000,
            max_events: 60_000,
            max_aliases: 100,
            max_anchors: 100,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 32,
            max_alias_expansions_per_anchor: 64,
        },
    }
}

fn vet(kubeconfig: &Kubeconfig) -> Result<(), Fault> {
    let refuse = |list: &str, name: &str, field: &str, what: &str, remedy: &'static str| {
        Err(Fault {
            field: sentence(&format!("{list}[{name}].{field}")),
            message: format!("a kubeconfig in a Secret may not {what}"),
            remedy,
        })
    };
    let runs = "run programs on this node";
    let reads = "name files of this node";
    let token =
        "use a token or a client certificate, or give the kubeconfig as a file with `--cluster`";
    let inside = "put the content itself into the field with the ending `-data`, or give the kubeconfig as a file with `--cluster`";
    for user in &kubeconfig.auth_infos {
        let Some(info) = &user.auth_info else {
            continue;
        };
        let name = user.name.as_str();
        if info.exec.is_some() {
            return refuse("users", name, "user.exec", runs, token);
        }
        if info.auth_provider.is_some() {
            return refuse("users", name, "user.auth-provider", runs, token);
        }
        if info.token_file.is_some() {
            return refuse("users", name, "user.tokenFile", reads, token);
        }
        if info.client_certificate.is_some() {
            return refuse("users", name, "user.client-certificate", reads, inside);
        }
        if info.client_key.is_some() {
            return refuse("users", name, "user.client-key", reads, inside);
        }
    }
    for cluster in &kubeconfig.clusters {
        let path = cluster
            .cluster
            .as_ref()
            .and_then(|it| it.certificate_authority.as_ref());
        if path.is_some() {
            return refuse(
                "clusters",
                &cluster.name,
                "cluster.certificate-authority",
                reads,
                inside,
            );
        }
    }
    Ok(())
}

/// A way round that we do not go.
pub(super) fn proxied(kubeconfig: &Kubeconfig) -> Option<Fault> {
    let by_proxy = |it: &&kube::config::NamedCluster| {
        let url = it.cluster.as_ref().and_then(|it| it.proxy_url.as_deref());
        url.is_some_and(|url| !url.is_empty())
    };
    kubeconfig.clusters.iter().find(by_proxy).map(|it| Fault {
        field: sentence(&format!("clusters[{}].cluster.proxy-url", it.name)),
        message: "API servers are not reached through a proxy".to_owned(),
        remedy: "name an address that this node reaches itself",
    })
}

/// Files that a kubeconfig names and a client reads once, when it is made.
pub(super) fn certificate_files(kubeconfig: &Kubeconfig) -> impl Iterator<Item = &str> {
    let users = kubeconfig
        .auth_infos
        .iter()
        .filter_map(|it| it.auth_info.as_ref());
    let clusters = kubeconfig
        .clusters
        .iter()
        .filter_map(|it| it.cluster.as_ref());
    users
        .flat_map(|it| [&it.client_certificate, &it.client_key])
        .chain(clusters.map(|it| &it.certificate_authority))
        .filter_map(|it| it.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(cluster: &str, user: &str) -> String {
        format!(
            "{{current-context: a, contexts: [{{name: a, context: {{cluster: a, user: a}}}}], \
             clusters: [{{name: a, cluster: {{server: 'https://127.0.0.1:1'{cluster}}}}}], \
             users: [{{name: a, user: {{{user}}}}}]}}"
        )
    }

    #[test]
    fn a_kubeconfig_with_everything_inside_is_read() {
        let text = kubeconfig(", certificate-authority-data: YQ==", "token: t");
        assert!(read(text.as_bytes()).is_ok());
    }

    #[test]
    fn a_kubeconfig_of_a_secret_neither_runs_programs_nor_names_files() {
        for (cluster, user, field) in [
            (
                "",
                "exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/sh}",
                "users[a].user.exec",
            ),
            (
                "",
                "auth-provider: {name: gcp, config: {cmd-path: /bin/sh}}",
                "users[a].user.auth-provider",
            ),
            ("", "tokenFile: /etc/shadow", "users[a].user.tokenFile"),
            (
                "",
                "client-certificate: /etc/shadow",
                "users[a].user.client-certificate",
            ),
            ("", "client-key: /etc/shadow", "users[a].user.client-key"),
            (
                ", certificate-authority: /etc/shadow",
                "",
                "clusters[a].cluster.certificate-authority",
            ),
        ] {
            let fault = read(kubeconfig(cluster, user).as_bytes()).unwrap_err();
            assert_eq!(fault.field, field);
        }
    }

    #[test]
    fn what_is_wrong_with_a_kubeconfig_does_not_repeat_its_secrets() {
        let fault = read(b"users: [{name: a, user: {token: hunter2, exec: hunter2}}]").unwrap_err();
        assert!(!fault.to_string().contains("hunter2"), "{fault}");
        assert!(read(b"\xff").is_err() && read(b"just text").is_err());
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let list = vec![format!("*a{}", level - 1); 10].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{list}]\n"));
        }
        assert!(read(bomb.as_bytes()).is_err());
    }

    #[test]
    fn a_proxy_is_said_to_be_unsupported() {
        let text = kubeconfig(", proxy-url: 'http://p:1'", "token: t");
        let fault = proxied(&read(text.as_bytes()).unwrap()).unwrap();
        assert_eq!(fault.field, "clusters[a].cluster.proxy-url");
    }
}
