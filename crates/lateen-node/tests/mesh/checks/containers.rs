//! What a container can do, and what can be done in it.

use k8s_openapi::api::core::v1::Pod;
use kube::api::AttachParams;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::same;
use crate::world::{Mesh, PATIENCE};

pub(super) async fn containers_cannot_reach_the_host(mesh: &Mesh) -> Result<(), String> {
    let script = r#"
        for path in /home/* /root/* /work /var/lib /etc/shadow /run/* /sys/* /mnt; do
            if [ -e "$path" ]; then echo "sees $path"; fi
        done
        for path in /usr/x /bin/x /.lateen/lateen /proc/sys/kernel/hostname /proc/sysrq-trigger; do
            if (echo x > "$path") 2>/dev/null; then echo "writes $path"; fi
        done
        # Its own few processes only.
        for pid in /proc/[0-9]*; do echo "$pid"; done | grep -c . | (read n; [ "$n" -le 6 ] || echo "sees $n processes")
        for file in /tmp/fill /fill /etc/hosts /dev/termination-log /dev/shm/fill; do
            dd if=/dev/zero of="$file" bs=1M count=600 2>/dev/null && echo "fills $file"
            rm -f "$file" 2>/dev/null || : > "$file"
        done
        grep -q '^NoNewPrivs:.1' /proc/self/status || echo "may gain rights"
        grep '^CapEff:.0*$' /proc/self/status > /dev/null || grep CapEff /proc/self/status
        mount -t tmpfs x /mnt 2>/dev/null && echo mounts
        ip link add x type veth 2>/dev/null && echo "makes links"
        true
    "#;
    same(mesh.script("prisoner", script).await?.as_str(), "")
}

pub(super) async fn a_program_runs_in_a_running_container(mesh: &Mesh) -> Result<(), String> {
    let api: kube::Api<Pod> = kube::Api::namespaced(mesh.remote_client().await?, "lab");
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let command = [
        "sh",
        "-c",
        "cat; hostname; echo $POD_WORD; echo problem >&2; exit 7",
    ];
    let params = AttachParams::default().stdin(true).stderr(true);
    let mut process = api
        .exec("web", command, &params)
        .await
        .map_err(|error| text(&error))?;
    let mut input = process.stdin().ok_or("no input")?;
    let status = process.take_status().ok_or("no status")?;
    let (mut output, mut error) = (String::new(), String::new());
    let mut stdout = process.stdout().ok_or("no output")?;
    let mut stderr = process.stderr().ok_or("no error output")?;
    input
        .write_all(b"typed\n")
        .await
        .map_err(|error| text(&error))?;
    // Its end is told to the program: `cat` ends.
    input.shutdown().await.map_err(|error| text(&error))?;
    drop(input);
    let reading = async {
        tokio::join!(
            stdout.read_to_string(&mut output),
            stderr.read_to_string(&mut error)
        )
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .map_err(|_| "the program did not end")?
        .0
        .map_err(|error| text(&error))?;
    same(
        (output.as_str(), error.as_str()),
        ("typed\nweb\nhere\n", "problem\n"),
    )?;
    let status = status.await.ok_or("no status")?;
    let causes = status
        .details
        .and_then(|details| details.causes)
        .unwrap_or_default();
    same(
        causes
            .first()
            .and_then(|cause| cause.message.clone())
            .as_deref(),
        Some("7"),
    )?;

    let params = AttachParams::default().stderr(false).tty(true);
    let mut process = api
        .exec("web", ["sh", "-c", "test -c $(tty)"], &params)
        .await
        .map_err(|error| text(&error))?;
    let status = process
        .take_status()
        .ok_or("no status")?
        .await
        .ok_or("no status")?;
    same(status.status.as_deref(), Some("Success"))
}
