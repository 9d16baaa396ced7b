//! The AlbConfig CRD.

use serde_json::Value;

use crate::cases::by_name;

fn version() -> Value {
    let crd = by_name("defaults").one("CustomResourceDefinition");
    assert_eq!(crd["metadata"]["name"], "albconfigs.alibabacloud.com");
    assert_eq!(crd["spec"]["scope"], "Cluster");
    crd["spec"]["versions"][0].clone()
}

#[test]
fn columns_are_those_that_people_know() {
    let version = version();
    let columns = version["additionalPrinterColumns"]
        .as_array()
        .expect("columns");
    let names: Vec<_> = columns
        .iter()
        .filter_map(|it| it["name"].as_str())
        .collect();
    // NAME comes first by itself.
    assert_eq!(
        names,
        ["ALBID", "DNSNAME", "PORT&PROTOCOL", "CERTID", "AGE"]
    );
    assert!(version["subresources"]["status"].is_object());
}

#[test]
fn nothing_that_an_albconfig_may_hold_is_refused_or_lost() {
    let version = version();
    let mut open = 0;
    walk(&version["schema"]["openAPIV3Schema"], "", &mut open);
    assert!(open >= 15, "{open} objects");
}

fn walk(schema: &Value, place: &str, open: &mut usize) {
    for narrow in [
        "enum",
        "minimum",
        "maximum",
        "pattern",
        "maxLength",
        "required",
        "maxItems",
    ] {
        assert!(schema.get(narrow).is_none(), "{place} has {narrow}");
    }
    if schema["type"] == "object" && place != "/metadata" {
        let keeps = &schema["x-kubernetes-preserve-unknown-fields"];
        assert_eq!(keeps, true, "{place} drops what it does not know");
        *open += 1;
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{place}/{name}"), open);
    }
    if let Some(items) = schema.get("items") {
        walk(items, &format!("{place}[]"), open);
    }
}

#[test]
fn fields_have_the_spelling_of_the_cloud() {
    let version = version();
    let schema = version.pointer("/schema/openAPIV3Schema/properties/spec/properties");
    let schema = schema.expect("spec");
    let field = |pointer: &str| schema.pointer(pointer).is_some();
    for pointer in [
        "/config/properties/zoneMappings/items/properties/vSwitchId",
        "/config/properties/billingConfig/properties/bandWidthPackageId",
        "/listeners/items/properties/certificates/items/properties/CertificateId",
        "/listeners/items/properties/certificates/items/properties/IsDefault",
        "/listeners/items/properties/caCertificates/items/properties/CertificateId",
        "/listeners/items/properties/xForwardedForConfig/properties/XForwardedForSLBIdEnabled",
        "/listeners/items/properties/xForwardedForConfig/properties/XForwardedForClientCertSubjectDNAlias",
        "/listeners/items/properties/aclConfig/properties/aclEntries",
        "/listeners/items/properties/logConfig/properties/accessLogTracingConfig/properties/tracingSample",
        "/listeners/items/properties/quicConfig/properties/quicUpgradeEnabled",
        "/listeners/items/properties/port/x-kubernetes-int-or-string",
    ] {
        assert!(field(pointer), "{pointer}");
    }
}
