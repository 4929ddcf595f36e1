//! `deploy/kubernetes`: taken by Kubernetes' own schemas, and held to what the binary has.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::Value;

use crate::harness::{documents, documents_of, not_run, orgd, texts};

const FOLDER: &str = "deploy/kubernetes";

/// The files that the kustomization names.
fn files() -> Vec<String> {
    let kustomization = documents(&format!("{FOLDER}/kustomization.yaml")).remove(0);
    let names = texts(&kustomization["resources"]).into_iter();
    names.map(|name| format!("{FOLDER}/{name}")).collect()
}

fn objects(kind: &str) -> Vec<Value> {
    let all = files().into_iter().flat_map(|file| documents(&file));
    all.filter(|object| object["kind"] == kind).collect()
}

/// Deployments and jobs, by name, with the specification of their pods.
fn pods() -> Vec<(String, Value)> {
    let all = ["Deployment", "Job"].into_iter().flat_map(objects);
    let pods = all.map(|object| {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        (name, object["spec"]["template"]["spec"].clone())
    });
    let pods: Vec<_> = pods.collect();
    assert_eq!(pods.len(), 3);
    pods
}

/// The value of a variable of a container.
fn variable<'a>(container: &'a Value, name: &str) -> &'a str {
    let mut variables = container["env"].as_array().unwrap().iter();
    variables.find(|variable| variable["name"] == name).unwrap()["value"].as_str().unwrap()
}

#[test]
fn kubernetes_takes_every_file_that_is_there() {
    let validate =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/kubernetes-validate");
    let output = Command::new(validate)
        .arg("--strict")
        .args(files())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{said:?}");

    let there = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER)).unwrap();
    let there: BTreeSet<_> =
        there.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let named = files().into_iter().map(|file| file.rsplit('/').next().unwrap().to_owned());
    let named: BTreeSet<_> = named.chain(["kustomization.yaml".to_owned()]).collect();
    assert_eq!(there, named);
}

#[test]
fn pods_have_commands_and_settings_of_the_binary_and_nothing_to_write_to() {
    let page = orgd("", "config --page").stdout;
    for (name, pod) in pods() {
        let container = &pod["containers"][0];
        let read = orgd("", &format!("{} --help", texts(&container["args"]).join(" ")));
        assert_eq!(read.code, 0, "{name}: {}", read.stderr);
        for variable in container["env"].as_array().unwrap() {
            let variable = variable["name"].as_str().unwrap();
            assert!(page.contains(&format!("| `{variable}` |")), "{name}: {variable}");
            assert!(read.stdout.contains(variable), "{name}: {variable}");
        }
        // A URL with a password comes from a file.
        let file = container["env"]
            .as_array()
            .unwrap()
            .iter()
            .any(|variable| variable["name"] == "ORGD_DATABASE_URL_FILE");
        assert_eq!(file, name != "gateway", "{name}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL", "{name}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        // Variables of services would begin with ORGD_ too, and be warned of.
        assert_eq!(pod["enableServiceLinks"], false, "{name}");
    }
}

#[test]
fn probes_ask_the_operations_listener_and_a_stop_has_the_time_that_it_takes() {
    let deployments = objects("Deployment");
    assert_eq!(deployments.len(), 2);
    for deployment in deployments {
        let pod = &deployment["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        for (probe, path) in
            [("startupProbe", "/livez"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")]
        {
            let asked = &container[probe]["httpGet"];
            assert_eq!((&asked["path"], &asked["port"]), (&path.into(), &"ops".into()), "{probe}");
        }
        let seconds =
            |name| -> u64 { variable(container, name).strip_suffix('s').unwrap().parse().unwrap() };
        let (lame, drain) = (seconds("ORGD_LAME_DUCK_TIME"), seconds("ORGD_DRAIN_DEADLINE"));
        assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > lame + drain);
        let readiness = &container["readinessProbe"];
        let seen = readiness["periodSeconds"].as_u64().unwrap()
            * readiness["failureThreshold"].as_u64().unwrap();
        assert!(lame > seen + 5, "{lame} s");
    }
}

#[test]
fn services_budgets_and_autoscalers_are_those_of_the_pods() {
    // What the image listens to.
    let dockerfile = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile"));
    let dockerfile = dockerfile.unwrap();
    let mut named = BTreeSet::new();
    for deployment in objects("Deployment") {
        let name = &deployment["metadata"]["name"];
        let of_this = |object: &&Value| object["metadata"]["name"] == *name;
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        let ports = &deployment["spec"]["template"]["spec"]["containers"][0]["ports"];
        for port in ports.as_array().unwrap() {
            let variable = format!("ORGD_{}_ADDR", port["name"].as_str().unwrap().to_uppercase());
            let address = format!("{variable}=0.0.0.0:{}", port["containerPort"]);
            assert!(dockerfile.contains(&address), "{address}");
            named.insert(port["name"].as_str().unwrap().to_owned());
        }
        let service = objects("Service");
        let service = service.iter().find(of_this).unwrap();
        for port in service["spec"]["ports"].as_array().unwrap() {
            assert!(named.contains(port["targetPort"].as_str().unwrap()), "{port}");
        }
        let budget = objects("PodDisruptionBudget");
        let budget = budget.iter().find(of_this).unwrap();
        for selector in [&service["spec"]["selector"], &budget["spec"]["selector"]["matchLabels"]] {
            for (label, value) in selector.as_object().unwrap() {
                assert_eq!(labels[label], *value, "{name}");
            }
        }
        let scaler = objects("HorizontalPodAutoscaler");
        let scaler = scaler.iter().find(of_this).unwrap();
        assert_eq!(scaler["spec"]["scaleTargetRef"]["name"], *name);
        assert_eq!(scaler["spec"]["minReplicas"], 2);
        // The policy is over all of them.
        assert_eq!(labels["app.kubernetes.io/part-of"], "orgd", "{name}");
    }
    assert_eq!(named, ["grpc", "http", "ops"].map(str::to_owned).into());
}

/// The one object of a kind with this name.
fn object(kind: &str, name: &str) -> Value {
    let all = objects(kind);
    all.into_iter().find(|object| object["metadata"]["name"] == name).unwrap()
}

#[test]
fn everyone_reaches_both_apis_and_only_what_monitors_the_operations_listener() {
    let [service, gateway, monitoring] =
        ["orgd", "gateway", "monitoring"].map(|name| object("NetworkPolicy", name));
    assert_eq!(objects("NetworkPolicy").len(), 3);
    for (policy, label, value, ports) in [
        (&service, "name", "orgd", &["grpc", "http"][..]),
        (&gateway, "name", "gateway", &["http"]),
        // Of every pod that serves.
        (&monitoring, "part-of", "orgd", &["ops"]),
    ] {
        let label = format!("app.kubernetes.io/{label}");
        let of_policy = &policy["spec"]["podSelector"]["matchLabels"];
        assert_eq!(of_policy, &serde_json::json!({label: value}));
        let rules = policy["spec"]["ingress"].as_array().unwrap();
        let named =
            rules[0]["ports"].as_array().unwrap().iter().map(|port| port["port"].as_str().unwrap());
        assert_eq!((rules.len(), named.collect::<Vec<_>>()), (1, ports.to_vec()));
        assert_eq!(rules[0].get("from").is_some(), ports == ["ops"], "{policy}");
    }
}

#[test]
fn clients_that_balance_find_the_address_of_each_pod() {
    let pods = object("Service", "orgd-pods");
    assert_eq!(pods["spec"]["clusterIP"], "None");
    let one = object("Service", "orgd");
    assert_eq!(pods["spec"]["selector"], one["spec"]["selector"]);
    assert_eq!(pods["spec"]["ports"][0], one["spec"]["ports"][0]);
    assert!(page().contains("dns:///orgd-pods.orgd:50051"));
}

fn page() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/DEPLOYMENT.md");
    std::fs::read_to_string(page).unwrap()
}

/// What the page names is there: what its commands select, the secrets' keys and files, and the job's patience.
#[test]
fn the_pages_commands_select_and_name_what_is_there() {
    let page = page();
    let selected = page.split("--selector app.kubernetes.io/name=").skip(1);
    let selected: BTreeSet<_> =
        selected.map(|rest| rest.split_whitespace().next().unwrap()).collect();
    assert_eq!(selected, ["orgd", "orgd-migrate"].into());
    for (kind, name) in [("Deployment", "orgd"), ("Job", "orgd-migrate")] {
        assert_eq!(object(kind, name)["metadata"]["labels"]["app.kubernetes.io/name"], name);
    }
    for (name, pod) in pods() {
        let Some(volume) = pod["volumes"].get(0) else { continue };
        let secret = volume["secret"]["secretName"].as_str().unwrap();
        let made = format!("create secret generic {secret} --from-file=url=");
        assert!(page.contains(&made), "{name}: {made}");
        let folder = pod["containers"][0]["volumeMounts"][0]["mountPath"].as_str().unwrap();
        assert!(page.contains(&format!("sslrootcert={folder}/ca.pem")), "{name}");
    }
    assert!(object("Job", "orgd-migrate")["spec"]["ttlSecondsAfterFinished"].as_u64() == Some(600));
    // Applied alone, it must not come into another namespace.
    let account = object("ServiceAccount", "orgd");
    assert_eq!(account["metadata"]["namespace"], object("Namespace", "orgd")["metadata"]["name"]);
}

#[test]
fn the_pages_patches_are_taken_and_trust_nobody_whom_the_policies_let_in_besides() {
    let kustomize = |folder: &Path| Command::new("kubectl").arg("kustomize").arg(folder).output();
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
    if kustomize(&here).is_err() {
        return not_run("kubectl kustomize");
    }
    let folder = tempfile::TempDir::new().unwrap();
    for file in std::fs::read_dir(&here).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let page = page();
    let patches = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let path = folder.path().join("kustomization.yaml");
    let text = std::fs::read_to_string(&path).unwrap() + patches;
    std::fs::write(path, text).unwrap();
    let output = kustomize(folder.path()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made = documents_of(&output.stdout);
    let find = |kind: &str, name: &str| {
        let mut made = made.iter();
        made.find(|object| object["kind"] == kind && object["metadata"]["name"] == name).unwrap()
    };
    assert_eq!(find("ServiceAccount", "orgd")["imagePullSecrets"][0]["name"], "registry");
    for name in ["orgd", "gateway"] {
        let pod = &find("Deployment", name)["spec"]["template"]["spec"];
        assert!(!variable(&pod["containers"][0], "ORGD_TRUSTED_PROXIES").is_empty());
        let policy = find("NetworkPolicy", name);
        assert_eq!(policy["spec"]["ingress"][0]["from"].as_array().unwrap().len(), 1, "{policy}");
    }
    let from = &find("NetworkPolicy", "orgd")["spec"]["ingress"][0]["from"][0];
    let gateways = &find("Deployment", "gateway")["spec"]["selector"]["matchLabels"];
    assert_eq!(from["podSelector"]["matchLabels"], *gateways);
}

#[test]
fn prometheus_finds_the_pods_by_their_labels_and_names_the_jobs_that_alerts_know() {
    let scrape = documents("deploy/prometheus/kubernetes.yml").remove(0);
    let scrape = &scrape["scrape_configs"][0];
    assert_eq!(texts(&scrape["kubernetes_sd_configs"][0]["namespaces"]["names"]), ["orgd"]);
    let [kept, job] = [0, 1].map(|index| scrape["relabel_configs"][index].clone());
    assert_eq!((&kept["regex"], &kept["action"]), (&"orgd;ops".into(), &"keep".into()));
    assert_eq!(
        texts(&kept["source_labels"]),
        [
            "__meta_kubernetes_pod_label_app_kubernetes_io_part_of",
            "__meta_kubernetes_pod_container_port_name"
        ]
    );
    let label = "__meta_kubernetes_pod_label_app_kubernetes_io_name";
    assert_eq!((texts(&job["source_labels"]), &job["target_label"]), (vec![label], &"job".into()));
    let jobs = objects("Deployment").into_iter().map(|deployment| {
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        labels["app.kubernetes.io/name"].as_str().unwrap().to_owned()
    });
    assert_eq!(jobs.collect::<BTreeSet<_>>(), ["gateway", "orgd"].map(str::to_owned).into());
}
