//! Texts and defaults as daprd 1.18.1 gave them.

use super::*;
use crate::config::OwnFlags;

fn flags() -> Flags {
    Flags { app_id: "a".into(), ..Flags::default() }
}

fn env(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().copied().collect()
}

fn settings(change: impl FnOnce(&mut Flags)) -> Result<Settings, SettingsError> {
    let mut flags = flags();
    change(&mut flags);
    Settings::new(&flags, &Environment::default())
}

fn refusal(change: impl FnOnce(&mut Flags)) -> String {
    settings(change).expect_err("a refusal").0
}

#[test]
fn defaults() {
    let Settings { config, listen, workers, pin, .. } = settings(|_| ()).unwrap();
    assert_eq!((workers, pin), (WorkerCount::Auto, Pin::Auto));
    assert_eq!((config.http_port, config.grpc_port), (3500, 50001));
    assert_eq!(config.namespace.as_str(), "default");
    assert_eq!(config.max_body_size, 4 << 20);
    assert_eq!(config.app, None);
    assert_eq!(config.api_token, None);
    assert_eq!(listen.api_addresses, [""]);
    assert_eq!(listen.metrics, Some(("0.0.0.0".to_owned(), 9090)));
    assert_eq!((listen.public, listen.internal_port), (None, None));
}

/// `dapr run` of CLI 1.16.5 passes `--profile-port -1`.
#[test]
fn takes_any_number_for_the_profile_port() {
    assert!(settings(|flags| flags.profile_port = "-1".into()).is_ok());
}

#[test]
fn refusals_are_daprds() {
    assert_eq!(refusal(|f| f.app_id.clear()), "parameter app-id cannot be empty");
    assert_eq!(refusal(|f| f.app_id = "a.b".into()), "parameter app-id cannot contain dots");
    for (text, flag) in [
        ("dapr-http-port flag", 0),
        ("dapr-grpc-port flag", 1),
        ("profile-port flag", 2),
        ("dapr-internal-grpc-port", 3),
        ("dapr-public-port", 4),
        ("app-port", 5),
    ] {
        let shown = refusal(|f| {
            let slots = [
                &mut f.dapr_http_port,
                &mut f.dapr_grpc_port,
                &mut f.profile_port,
                &mut f.dapr_internal_grpc_port,
                &mut f.dapr_public_port,
                &mut f.app_port,
            ];
            for slot in slots.into_iter().skip(flag).take(1) {
                *slot = "x".into();
            }
        });
        assert_eq!(
            shown,
            format!("error parsing {text}: strconv.Atoi: parsing \"x\": invalid syntax")
        );
    }
    let conflict =
        |name, port| format!("the '{name}' argument value {port} conflicts with 'app-port'");
    assert_eq!(refusal(|f| f.app_port = "3500".into()), conflict("dapr-http-port", 3500));
    assert_eq!(refusal(|f| f.app_port = "50001".into()), conflict("dapr-grpc-port", 50001));
    assert_eq!(refusal(|f| f.app_protocol = "foo".into()), "invalid value for 'app-protocol': foo");
    assert_eq!(
        refusal(|f| f.disable_init_endpoints = vec!["foo".into()]),
        "invalid value for 'disable-init-endpoints': foo"
    );
    assert_eq!(
        refusal(|f| {
            f.enable_app_health_check = true;
            f.app_health_probe_timeout = 6000;
        }),
        "value for 'health-probe-timeout' must be smaller than 'health-probe-interval'"
    );
}

#[test]
fn what_daprd_finds_first() {
    let refused = |change: fn(&mut Flags)| {
        let mut flags = flags();
        change(&mut flags);
        check_flags(&flags).unwrap_err().0
    };
    assert_eq!(
        refused(|f| f.max_body_size = Some("foo".into())),
        "invalid value for 'max-body-size' option: quantities must match the regular expression \
         '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    );
    assert_eq!(
        refused(|f| {
            f.actors_disseminate_timeout = go::parse_duration("0s").ok();
            f.actors_disseminate_timeout_text = "0s".into();
        }),
        "invalid value for 'actors-disseminate-timeout' option: must be positive, got 0s"
    );
    assert_eq!(check_flags(&Flags::default()), Ok(()));
}

#[test]
fn sizes() {
    let body = |change: fn(&mut Flags)| settings(change).unwrap().config.max_body_size;
    assert_eq!(body(|f| f.max_body_size = Some("0".into())), 0);
    assert_eq!(body(|f| f.max_body_size = Some("-1".into())), 4 << 20);
    assert_eq!(body(|f| f.max_body_size = Some("16Mi".into())), 16 << 20);
    assert_eq!(body(|f| f.dapr_http_max_request_size = Some(8)), 8 << 20);
    assert_eq!(body(|f| f.dapr_http_max_request_size = Some(0)), 0);
    let both: fn(&mut Flags) = |f| {
        f.max_body_size = Some("1Ki".into());
        f.dapr_http_max_request_size = Some(8);
    };
    assert_eq!(body(both), 1024);
    let headers = |change: fn(&mut Flags)| settings(change).unwrap().config.header_list_size;
    assert_eq!(headers(|_| ()), HEADER_LIST_SIZE_MAX);
    assert_eq!(headers(|f| f.read_buffer_size = Some("16".into())), 16 << 10);
    assert_eq!(headers(|f| f.read_buffer_size = Some("0".into())), HEADER_LIST_SIZE_MIN);
}

#[test]
fn the_app() {
    let app = |change: fn(&mut Flags)| settings(change).unwrap().config.app;
    assert_eq!(app(|f| f.app_port = "0".into()), None);
    assert_eq!(app(|f| f.app_port = "-1".into()), None);
    let found = app(|f| {
        f.app_port = "50051".into();
        f.app_protocol = "GRPC".into();
        f.app_ssl = true;
    })
    .unwrap();
    assert_eq!(found, App::at("127.0.0.1", 50051, AppProtocol::Grpcs));
}

#[test]
fn an_app_on_a_socket() {
    let app = |port: &str, socket: &str| {
        let (port, socket) = (port.to_owned(), socket.to_owned());
        let own = OwnFlags { app_socket: socket, ..OwnFlags::default() };
        let flags = Flags { app_port: port, ringside: own, ..flags() };
        Settings::new(&flags, &env(&[])).map(|settings| settings.config.app)
    };
    let found = app("", "/run/app.sock").unwrap().unwrap();
    assert_eq!(found.place, AppPlace::Socket(SocketPath::parse("/run/app.sock").unwrap()));
    assert_eq!((found.authority().as_str(), found.port()), ("localhost", 0));
    // `dapr run` passes 0 and -1 for no port.
    for none in ["0", "-1"] {
        assert_eq!(app(none, "/run/app.sock").unwrap(), Some(found.clone()));
    }
    let refused = app("50051", "/run/app.sock").unwrap_err().0;
    assert!(refused.contains("'ringside-app-socket' and 'app-port'"), "{refused}");
    let refused = app("", &"x".repeat(108)).unwrap_err().0;
    assert!(refused.contains("at most 107 octets"), "{refused}");
}

#[test]
fn environment() {
    let env = env(&[
        ("NAMESPACE", ""),
        ("DAPR_API_TOKEN", "t"),
        ("APP_API_TOKEN", ""),
        ("DAPR_HOST_IP", "10.0.0.1"),
        ("DAPR_HTTP_DISABLE_H2C", "Yes"),
    ]);
    let settings = Settings::new(&flags(), &env).unwrap();
    assert_eq!(settings.config.namespace.as_str(), "");
    assert_eq!(settings.config.api_token.as_deref(), Some("t"));
    assert_eq!(settings.config.app_token, None);
    assert_eq!(settings.host_ip.as_deref(), Some("10.0.0.1"));
    assert!(settings.http_without_h2c);
}

#[test]
fn security_wants_anchors() {
    let mut flags = flags();
    assert_eq!(security(&flags, &env(&[])), Ok(None));
    flags.enable_mtls = true;
    let refused = security(&flags, &env(&[("DAPR_TRUST_ANCHORS", "")])).unwrap_err();
    assert_eq!(refused.0, "trust anchors are required");
    flags.sentry_address = "localhost:50001".into();
    let anchored = [("DAPR_TRUST_ANCHORS", "PEM"), ("DAPR_CONTROLPLANE_NAMESPACE", "dapr-system")];
    let found = security(&flags, &env(&anchored)).unwrap().unwrap();
    assert_eq!(
        (found.trust_domain.as_str(), found.namespace.as_str()),
        ("localhost", "dapr-system")
    );
    assert_eq!(found.request_id, "a");
    flags.control_plane_namespace = Some("given".into());
    assert_eq!(security(&flags, &env(&anchored)).unwrap().unwrap().namespace, "given");
}

#[test]
fn own_flags() {
    let found = settings(|f| {
        f.ringside.forward = vec!["9000=server".into(), "9001=server.prod".into()];
        f.ringside.io = "epoll".into();
        f.ringside.workers = "4".into();
        f.ringside.pin = "on".into();
        f.ringside.drain_max = go::parse_duration("30s").ok();
    })
    .unwrap();
    assert_eq!((found.workers, found.pin), (WorkerCount::Given(4), Pin::On));
    let found = found.config;
    assert_eq!(found.forwards[1], Forward { port: 9001, app_id: "server.prod".into() });
    assert_eq!(found.io, IoDriver::Epoll);
    assert_eq!(found.drain_max, Some(Duration::from_secs(30)));
    for bad in ["9000", "x=server", "0=server", "9000=", "9000=a.b.c"] {
        assert!(settings(|f| f.ringside.forward = vec![bad.into()]).is_err(), "{bad}");
    }
    for bad in ["0", "-1", "1025", "many", ""] {
        assert!(settings(|f| f.ringside.workers = bad.into()).is_err(), "{bad}");
    }
    let budget = |text: &str| settings(|f| f.ringside.retry_budget = text.into());
    let budgets = ["off", "0", "20", "1000"].map(|text| budget(text).unwrap().retry_budget);
    assert_eq!(budgets, [None, Some(0), Some(20), Some(1000)]);
    for bad in ["", "on", "-1", "1001", "20%"] {
        assert!(budget(bad).is_err(), "{bad}");
    }
    let window = |text: &str| settings(|f| f.ringside.busy_poll = text.into());
    let windows = ["off", "1", "50", "1000"].map(|text| window(text).unwrap().busy_poll);
    assert_eq!(
        windows,
        [None, Some(1), Some(50), Some(1000)].map(|n| n.map(Duration::from_micros))
    );
    for bad in ["", "on", "0", "-1", "1001", "50us", "0.5"] {
        assert!(window(bad).is_err(), "{bad}");
    }
    assert!(settings(|f| f.ringside.pin = "true".into()).is_err());
    assert!(settings(|f| f.ringside.io = "kqueue".into()).is_err());
}

#[test]
fn calls_of_the_app_are_bounded_when_asked() {
    let most = |concurrency, proxied| {
        let found = settings(|f| {
            f.app_max_concurrency = concurrency;
            f.ringside.app_max_concurrency_proxied = proxied;
        });
        found.unwrap().app_calls_max
    };
    assert_eq!((most(3, true), most(3, false)), (Some(3), None));
    assert_eq!((most(0, true), most(-1, true), most(i64::MIN, true)), (None, None, None));
}

#[test]
fn shutting_down() {
    let found =
        |seconds| settings(|f| f.dapr_graceful_shutdown_seconds = seconds).unwrap().shutdown.grace;
    assert_eq!(found(5), Some(Duration::from_secs(5)));
    assert_eq!(found(-1), Some(Duration::from_secs(5)));
    assert_eq!(found(0), None);
}

#[test]
fn resources_over_components() {
    let found = settings(|f| {
        f.components_path = "old".into();
        f.resources_path = vec!["new".into()];
    });
    assert_eq!(found.unwrap().resource_folders, ["new"]);
    let found = settings(|f| f.components_path = "old".into());
    assert_eq!(found.unwrap().resource_folders, ["old"]);
}
