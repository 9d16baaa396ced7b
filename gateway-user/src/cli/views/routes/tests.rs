use super::*;
use crate::cli::{output::View, table::Paint, views::sample};

fn view() -> RoutesView {
    let record = sample::record();
    routes(&record.ir, &record.vips, &record.plan)
}

#[test]
fn rules_are_shown_in_order_with_the_share_of_every_pod() {
    let expected = "\
10.0.0.1:80  demo:80/HTTP: connection, one rule covers every request
  RULE  MATCHES      TO           SPLIT          SHARE  FROM
     1  any request  demo/web:80  c1 60, c2 40          demo/web spec.rules[0].http.paths[0]
                     c1/web-a     10.1.0.1:80   30.0 %
                     c1/web-b     10.1.0.2:80   30.0 %
                     c2/web-c     10.2.0.1:80   40.0 %

10.0.0.1:8080  demo:8080/HTTP: request, rule 1 (demo/gray) reads header \"stage\"
  RULE  MATCHES                                                 TO                 SPLIT          SHARE  FROM
     1  host a.example or *.b.example, path =/x, stage: g or h  demo/gray:80       by replicas           demo/gray spec.rules[0].http.paths[0]
                                                                c2/gray-a          10.2.0.9:80  100.0 %
     2  path /shop/*                                            demo/none:80       by replicas           demo/gray spec.rules[0].http.paths[1]
                                                                no ready pod: 503
";
    assert_eq!(view().text(Paint::Plain), expected);
}

#[test]
fn json_names_the_fields_that_scripts_read() {
    let json = serde_json::to_value(view()).unwrap();
    let first = &json[0];
    assert_eq!(first["listener"], "10.0.0.1:80");
    assert_eq!(first["steering"], "connection");
    assert_eq!(first["programmed"], true);
    assert_eq!(first["rules"][0]["split"]["clusters"]["c1"], 60);
    assert_eq!(first["rules"][0]["backends"][2]["share"], 0.4);
    assert_eq!(json[1]["rules"][0]["paths"][0]["type"], "Exact");
    assert_eq!(json[1]["rules"][0]["headers"][0]["name"], "stage");
}

#[test]
fn a_listener_whose_plan_differs_shows_what_the_plan_says() {
    let mut record = sample::record();
    for service in record.plan.services.values_mut() {
        service.mode = Mode::Request;
    }
    let changed = routes(&record.ir, &record.vips, &record.plan);
    assert_eq!(changed.0[0].steering, SteeringMode::Request);
    assert!(changed.0[0].reason.contains("no room"));
    let none = routes(&record.ir, &record.vips, &Plan::default());
    assert!(!none.0[0].programmed);
}
