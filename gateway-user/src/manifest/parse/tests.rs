use super::*;

fn read(text: &str) -> Parsed {
    parse(
        &Origin {
            file: "a.yaml".into(),
            cluster: None,
        },
        text.as_bytes(),
        Limits::default(),
    )
}

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n")
}

#[test]
fn a_broken_document_leaves_the_others_of_its_file() {
    let parsed = read(&format!(
        "{}---\na: [1\n---\n{}",
        service("one"),
        service("two")
    ));
    assert_eq!(parsed.objects.len(), 2);
    assert_eq!(parsed.problems.len(), 1);
    assert!(
        parsed.problems[0].field.starts_with("line "),
        "{}",
        parsed.problems[0]
    );
    assert_eq!(
        parsed.broken,
        [Broken {
            file: "a.yaml".into(),
            object: None
        }]
    );
}

#[test]
fn json_and_lists_are_read_like_yaml() {
    let json = r#"{"apiVersion":"v1","kind":"List","items":[
            {"apiVersion":"v1","kind":"Service","metadata":{"name":"a"}},
            {"apiVersion":"networking.k8s.io/v1","kind":"IngressList","items":[{"metadata":{"name":"b"}}]}]}"#;
    let parsed = read(json);
    assert_eq!(parsed.problems, []);
    assert!(
        matches!(&parsed.objects[..], [Object::Service(_), Object::Ingress(ingress)]
            if ingress.metadata.namespace == "default" && ingress.metadata.name == "b")
    );
}

#[test]
fn kinds_we_do_not_use_are_skipped_silently() {
    let parsed = read(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\n",
    );
    assert!(parsed.objects.is_empty() && parsed.problems.is_empty());
}

#[test]
fn only_another_version_of_our_own_group_is_a_problem() {
    let read = |version: &str, kind: &str| {
        let parsed = read(&format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n"
        ));
        (parsed.problems.len(), parsed.broken.len())
    };
    assert_eq!(read("config.openshift.io/v1", "Ingress"), (0, 0));
    assert_eq!(
        read("networking.internal.knative.dev/v1alpha1", "Ingress"),
        (0, 0)
    );
    assert_eq!(
        read(
            "config.openshift.io/v1",
            "IngressList\nitems: [{metadata: {name: b}}]"
        ),
        (0, 0)
    );
    assert_eq!(read("networking.k8s.io/v1beta1", "Ingress"), (1, 1));
    assert_eq!(read("extensions/v1beta1", "Ingress"), (1, 1));
    assert_eq!(read("discovery.k8s.io/v1beta1", "EndpointSlice"), (1, 1));
    assert_eq!(read("v1", "Ingress"), (1, 1));
}

#[test]
fn an_annotation_that_is_a_number_names_object_and_field() {
    let parsed = read(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a, annotations: {alb.ingress.kubernetes.io/order: 5}}\n",
    );
    let problem = &parsed.problems[0];
    assert_eq!(
        problem.field,
        "metadata.annotations[alb.ingress.kubernetes.io/order]"
    );
    assert!(
        problem.to_string().contains("put the value in quotes"),
        "{problem}"
    );
    assert_eq!(problem.object.to_string(), "Ingress default/a");
    assert_eq!(parsed.broken[0].object.as_ref(), Some(&problem.object));
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        bomb.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            vec![format!("*a{before}"); 10].join(",")
        ));
    }
    let parsed = read(&bomb);
    assert!(
        parsed.problems[0]
            .message
            .starts_with("not valid YAML or JSON"),
        "{}",
        parsed.problems[0]
    );
}
