//! `deploy/kubernetes`: taken by Kubernetes' own schemas, and held to what the binary has.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::Value;

use crate::harness::{documents, orgd, texts};

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
fn services_budgets_autoscalers_and_the_policy_are_those_of_the_pods() {
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

    let policy = objects("NetworkPolicy").remove(0);
    let of_policy = &policy["spec"]["podSelector"]["matchLabels"];
    assert_eq!(of_policy, &serde_json::json!({"app.kubernetes.io/part-of": "orgd"}));
    for rule in policy["spec"]["ingress"].as_array().unwrap() {
        let ports: Vec<_> = rule["ports"].as_array().unwrap().iter().collect();
        let has_ops = ports.iter().any(|port| port["port"] == "ops");
        assert_eq!(has_ops, rule.get("from").is_some(), "{rule}");
    }
}
