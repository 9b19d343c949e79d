//! What the configurations say; that the programs take them is the smoke test's.

use super::*;

fn leaf(name: &str) -> Leaf {
    let path = |ending: &str| format!("/c/{name}.{ending}").into();
    Leaf { certificate: path("crt"), key: path("key"), both: path("pem") }
}

fn place() -> Place {
    let [at, to, metrics] = [11, 22, 33].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    Place { at, to, metrics }
}

fn configs(writer: Writer) -> [String; 2] {
    let certificates = Certificates {
        authority: "/c/ca.pem".into(),
        outbound: leaf("outbound"),
        inbound: leaf("inbound"),
    };
    [Side::Outbound, Side::Inbound].map(|side| writer(side, place(), Some(&certificates)))
}

#[test]
fn without_certificates_there_is_no_tls() {
    for writer in [haproxy_config as Writer, nginx_config, envoy_config] {
        for side in [Side::Outbound, Side::Inbound] {
            let config = writer(side, place(), None);
            let words = ["ssl", "tls", "crt", "grpcs", "@"];
            let found: Vec<_> = words.into_iter().filter(|word| config.contains(word)).collect();
            let known = ["@type", "@"];
            assert!(found.iter().all(|word| known.contains(word)), "{found:?} in {config}");
        }
    }
    let config = nginx_config(Side::Outbound, place(), None);
    assert!(config.contains("listen 127.0.0.1:11 http2;"), "{config}");
    assert!(config.contains("grpc_pass grpc://next;"), "{config}");
    let config = haproxy_config(Side::Inbound, place(), None);
    assert!(config.contains("bind 127.0.0.1:11 proto h2\n"), "{config}");
    assert!(config.contains("server next 127.0.0.1:22 proto h2\n"), "{config}");
}

#[test]
fn each_side_shows_its_own_leaf_and_demands_the_other() {
    for writer in [haproxy_config as Writer, nginx_config, envoy_config] {
        let [outbound, inbound] = configs(writer);
        assert!(outbound.contains("/c/outbound.") && !outbound.contains("/c/inbound."));
        assert!(inbound.contains("/c/inbound.") && !inbound.contains("/c/outbound."));
        assert!(outbound.contains(INBOUND) && inbound.contains(OUTBOUND));
        for config in [&outbound, &inbound] {
            assert!(config.contains("/c/ca.pem"), "{config}");
        }
    }
}

#[test]
fn haproxy_speaks_tls_1_3_with_one_cipher_between_the_hops_only() {
    let [outbound, inbound] = configs(haproxy_config);
    assert!(outbound.contains("  bind 127.0.0.1:11 proto h2\n"));
    assert!(outbound.contains("server next 127.0.0.1:22 ssl ssl-min-ver TLSv1.3 ciphersuites"));
    assert!(inbound.contains("  bind 127.0.0.1:11 ssl ssl-min-ver TLSv1.3 ciphersuites TLS_AES"));
    assert!(inbound.contains("verify required"));
    assert!(inbound.contains("  server next 127.0.0.1:22 proto h2\n"));
}

#[test]
fn nginx_is_one_process_that_never_retires_connections() {
    let [outbound, inbound] = configs(nginx_config);
    assert!(outbound.contains("listen 127.0.0.1:11 http2;"));
    assert!(outbound.contains("grpc_pass grpcs://next;"));
    assert!(outbound.contains("grpc_ssl_verify on;"));
    assert!(inbound.contains("listen 127.0.0.1:11 ssl http2;"));
    assert!(
        inbound.contains("grpc_pass grpc://next;") && inbound.contains("ssl_verify_client on;")
    );
    assert!(inbound.contains("access_log off;") && inbound.contains("master_process off;"));
}

/// Others do none of it: equal features.
#[test]
fn envoy_makes_no_request_ids_and_adds_no_headers() {
    for config in configs(envoy_config) {
        assert!(config.contains("\n          generate_request_id: false\n"), "{config}");
        assert!(config.contains("\n              suppress_envoy_headers: true\n"), "{config}");
    }
}

#[test]
fn envoy_has_tls_on_the_side_of_the_other_hop() {
    let [outbound, inbound] = configs(envoy_config);
    assert!(outbound.contains("UpstreamTlsContext") && !outbound.contains("DownstreamTlsContext"));
    assert!(inbound.contains("DownstreamTlsContext") && !inbound.contains("UpstreamTlsContext"));
    assert!(inbound.contains("require_client_certificate: true"));
    assert!(!outbound.contains('@') || !outbound.contains("@NEXT"), "{outbound}");
}
