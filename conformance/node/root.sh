# Root folders for images of a real node (`kube.sh image`), made of this machine's programs. To be sourced.

# root_folder ROOT LATEEN PROGRAM...: an empty system with `lateen` in /usr/local/bin, other programs where they are
# here, and the libraries of all. Root and istio-proxy (1337) are its users.
root_folder() {
  local root=$1 lateen=$2 program path lib
  shift 2
  rm -rf "$root"
  mkdir -p "$root"/{usr/bin,usr/local/bin,usr/sbin,etc/istio/proxy,etc/ssl/certs,var/run/secrets,tmp,proc,sys,dev,run}
  ln -s usr/bin "$root/bin"
  ln -s bash "$root/usr/bin/sh"
  objcopy --strip-debug "$lateen" "$root/usr/local/bin/lateen"
  local paths=("$root/usr/local/bin/lateen")
  for program in "$@"; do
    path=$(type -P "$program") || { echo "$program is not on this machine" >&2; return 3; }
    path=${path/#\/bin\//\/usr\/bin\/}
    mkdir -p "$root$(dirname "$path")"
    cp -L "$path" "$root$path"
    paths+=("$path")
  done
  for path in "${paths[@]}"; do ldd "$path" 2>/dev/null | grep -oE '/[^ ]+\.so[^ ]*' || true; done |
    sort -u | while read -r lib; do mkdir -p "$root$(dirname "$lib")"; cp -L "$lib" "$root$lib"; done
  printf 'root:x:0:0:root:/root:/bin/bash\nistio-proxy:x:1337:1337::/:/bin/bash\n' > "$root/etc/passwd"
  printf 'root:x:0:\nistio-proxy:x:1337:\n' > "$root/etc/group"
  chmod 1777 "$root/tmp"
}
