//! Linux system calls that safe crates cannot express: namespaces, mounts, original destination, descriptor passing.
