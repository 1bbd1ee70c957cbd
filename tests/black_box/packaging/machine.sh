#!/bin/bash
# Usage: machine.sh SCRIPT FOLDER
# Boots systemd in namespaces of its own, on a copy of this machine's files that is lost afterwards, and runs SCRIPT
# there with FOLDER as its argument; its output is in FOLDER/log. Ends with the status of SCRIPT, or with 77 and a
# reason if this machine does not permit that.
set -euo pipefail

not_here() {
  echo "$1"
  exit 77
}

# The first process: a control group of its own, so that systemd manages no other one.
outside() {
  local groups=/sys/fs/cgroup status=0
  [[ -e $groups/cgroup.procs ]] || groups=/sys/fs/cgroup/unified
  [[ -e $groups/cgroup.procs ]] || not_here "there are no control groups of version 2"
  local group=$groups/license-server-test-$$
  mkdir "$group" 2>/dev/null || not_here "no control group can be made"
  GROUP=$group unshare --mount --pid --fork --kill-child --net --ipc --uts "$0" "$@" inside || status=$?
  # Processes that were killed leave their group a moment later.
  for _ in {1..50}; do
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
    read -rt 0.1 <> <(:) || true
  done
  exit "$status"
}

# In the namespaces: the files.
inside() {
  local folder=$2 root
  echo $$ >"$GROUP/cgroup.procs" || not_here "the control group cannot be entered"
  mount --make-rprivate /
  mkdir "$folder/machine"
  mount -t tmpfs tmpfs "$folder/machine" || not_here "no file system can be mounted"
  mkdir "$folder"/machine/{new,work,root}
  root=$folder/machine/root
  mount -t overlay -o "lowerdir=/,upperdir=$folder/machine/new,workdir=$folder/machine/work" overlay "$root" 2>/dev/null ||
    not_here "no overlay can be mounted"
  ip link set lo up
  mount -t proc proc "$root/proc"
  # The kernel's settings belong to the whole machine.
  mount --bind "$root/proc/sys" "$root/proc/sys"
  mount -o remount,bind,ro "$root/proc/sys"
  mount -t sysfs -o ro sysfs "$root/sys" || not_here "no sysfs can be mounted"
  devices "$root/dev"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  mount -t tmpfs -o mode=755 tmpfs "$root/mnt"
  mount --bind "$folder" "$root/mnt"
  units "$root" "$1"
  exec unshare --cgroup "$0" "$root" boot
}

devices() {
  mount -t tmpfs -o mode=755 tmpfs "$1"
  local device
  for device in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "$1/${device%:*}" c 1 "${device#*:}"
  done
  mknod -m 600 "$1/console" c 5 1
  mknod -m 666 "$1/tty" c 5 0
  mkdir "$1/shm" "$1/pts"
  mount -t tmpfs -o mode=1777 tmpfs "$1/shm"
  mount -t devpts -o newinstance,ptmxmode=666 devpts "$1/pts"
  ln -s pts/ptmx "$1/ptmx"
  ln -s /proc/self/fd "$1/fd"
}

# Nothing runs but the journal and the script.
units() {
  local units=$1/etc/systemd/system
  rm -rf "$1"/{etc,lib}/systemd/system/*.{wants,requires}/* "$1/usr/sbin/policy-rc.d" "$1/etc/license-server.toml"
  cat >"$units/trial.service" <<UNIT
[Unit]
DefaultDependencies=no
Wants=systemd-journald.service
After=systemd-journald.service
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
Environment=HOME=/root
WorkingDirectory=/
ExecStart=/bin/bash /mnt/$2 /mnt
StandardOutput=append:/mnt/log
StandardError=append:/mnt/log
UNIT
}

# In a namespace of control groups, which begins at the one that this process is in.
boot() {
  mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup" || not_here "the control groups cannot be mounted"
  # Not chroot: systemd makes namespaces of files from the top of its own.
  cd "$1"
  mkdir run/old
  pivot_root . run/old
  umount --lazy run/old
  exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=trial.service --log-target=journal --show-status=no
}

case ${!#} in
  inside) inside "$@" ;;
  boot) boot "$1" ;;
  *) outside "$@" ;;
esac
