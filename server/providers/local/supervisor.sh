#!/bin/sh
# Keeps one agent. The server starts this script in a session of its own and may be killed at any
# moment; whatever must hold then is therefore done here, under an exclusive lock that the kernel
# frees when the last holder dies:
#   - at most one supervisor of a workspace lives, however many servers try to start one;
#   - its record (pid, start time, build) is on disk before the agent exists;
#   - when it dies, the agent and its whole tree die with it (parent-death signals of the launch command).
#
# usage: supervisor.sh launch RUN BUILD MACHINE ISOLATION LOG_BYTES PREVIOUS COMMAND...
#        supervisor.sh clear RUN MARKER
# stdin        (of launch) is for the agent alone
# RUN/wanted   the build that should run; a supervisor of any other build leaves
# PREVIOUS     the first line of RUN/record when the server decided to start, empty if there was none. A supervisor that
#              finds another record leaves: the agent was started since, even if it has ended again
# RUN/groups   lines "OPTIONAL CGROUP FILE VALUE", with tabs: settings of the cgroups that the agent enters
# RUN/nproc    how many processes and threads the workspace's user may have; empty: unlimited
# Exits with 73: limits refused, 74: cannot write, 75: another supervisor is there, 76: not wanted or no longer wanted.
set -u
umask 077

take_lock() {
  cd "$1" 2>/dev/null || exit 76
  exec 9>>lock || exit 74
  if command -v flock >/dev/null 2>&1; then
    flock -n 9 || exit 75
  else
    # The lock belongs to the open file, which this shell shares with the child that takes it.
    perl -MFcntl=:flock -e 'open(my $l, ">>&=", 9) or exit 1; exit(flock($l, LOCK_EX | LOCK_NB) ? 0 : 1)' || exit 75
  fi
}

# The cgroups named in RUN/groups, each once, in $groups (their paths hold no newline).
read_groups() {
  groups=
  [ -r groups ] || return 0
  while IFS='	' read -r optional group file value; do
    case "$groups" in *"$group
"*) ;; *) groups="$groups$group
" ;; esac
  done <groups
}

each_group() { # COMMAND...: called with all cgroups as further arguments
  [ -n "$groups" ] || return 0
  (
    IFS='
'
    set -f
    # shellcheck disable=SC2086
    set -- "$@" $groups
    unset IFS
    exec "$@"
  )
}

# Without a pid namespace some processes outlive the agent: they are known by a variable of their
# environment. Under the lock, so that it is never the agent of another start.
end_strays() { # MARKER
  [ -d /proc/self ] || return 0
  tries=0
  while [ $tries -lt 250 ]; do
    strays=
    for file in $(grep -lsxzF "$1" /proc/[0-9]*/environ 2>/dev/null); do
      pid=${file#/proc/}
      pid=${pid%/environ}
      [ "$pid" = $$ ] && continue
      kill -9 "$pid" 2>/dev/null && strays=$pid
    done
    [ "$strays" ] || return 0
    tries=$((tries + 1))
    sleep 0.02
  done
  return 1
}

# A cgroup can be removed a moment after its last process has gone, which is longer on a busy machine.
drop_groups() {
  tries=0
  until each_group rmdir 2>/dev/null || [ $tries -ge 100 ] || ! groups_left; do
    tries=$((tries + 1))
    sleep 0.01
  done
}
groups_left() { [ "$(each_group ls -d 2>/dev/null)" ]; }

if [ "$1" = clear ]; then
  take_lock "$2"
  [ -z "$3" ] || end_strays "$3" || exit 75
  read_groups
  drop_groups
  exec rm -f record exit groups out
fi

exec 3<&0 </dev/null
run=$2 build=$3 machine=$4 isolation=$5 log_bytes=$6 previous=$7
shift 7
take_lock "$run"
{ read -r wanted <wanted; } 2>/dev/null && [ "$wanted" = "$build" ] || exit 76
current=
{ IFS= read -r current <record; } 2>/dev/null
[ "$current" = "$previous" ] || exit 76

set_started() { shift 19 && started=$1; }
started_of() { # PID: its start time, in $started; a pid alone may be reused
  started=
  if { read -r stat <"/proc/$1/stat"; } 2>/dev/null; then
    # shellcheck disable=SC2086
    set_started ${stat##*) }
  else
    started=$(LC_ALL=C ps -o lstart= -p "$1" 2>/dev/null)
  fi
}
started_of $$
own=$started
[ "$isolation" = none ] && [ -e record ] && end_strays "CDE_LOCAL_WORKSPACE=$CDE_LOCAL_WORKSPACE"
rm -f exit
printf '{"pid":%s,"startTime":"%s","machine":"%s","buildId":"%s","isolation":"%s"}\n' \
  $$ "$own" "$machine" "$build" "$isolation" >record || exit 74
[ -p out ] || mkfifo out || exit 74

read_groups
each_group rmdir 2>/dev/null
each_group mkdir -p || exit 73
memory_events=
if [ -n "$groups" ]; then
  while IFS='	' read -r optional group file value; do
    { printf '%s\n' "$value" >"$group/$file"; } 2>/dev/null && continue
    [ "$optional" = optional ] && continue
    echo "the limit $file=$value was refused in $group" >&2
    exit 73
  done <groups
  while IFS='	' read -r optional group file value; do
    case "$file" in
      memory.max) memory_events="$group/memory.events" ;;
      memory.limit_in_bytes) memory_events="$group/memory.oom_control" ;;
    esac
  done <groups
fi

# The log stays below two files of about LOG_BYTES, is written as soon as it is said, and a full disk
# never blocks or kills the agent. dd ends after 256 reads or at the end, and says how many it made.
newline='
'
keep_log() {
  exec 9>&- 3<&-
  mv -f agent.log agent.log.1
  while :; do
    if said=$({ LC_ALL=C dd bs=4096 count=256 >>agent.log; } 2>&1); then
      # "5+251 records in", after warnings perhaps: whole and partial reads.
      said=${said%% records in*}
      said=${said##*"$newline"}
      case "$said" in *[!0-9+]* | '') break ;; esac
      [ $((${said%+*} + ${said#*+})) -ge 256 ] || break
    else
      # No space: give back what the log took, drop what was said meanwhile, and go on.
      { : >agent.log; } || :
      [ "$(dd bs=65536 count=1 | wc -c)" -gt 0 ] || break
    fi
    [ "$(wc -c <agent.log)" -lt "$log_bytes" ] || mv -f agent.log agent.log.1
  done
  # At the end of all there is nothing left; whatever else ended the loop, the agent may go on talking.
  exec cat >/dev/null
}
keep_log <out >/dev/null 2>&1 &
log=$!

(
  exec 9>&-
  if [ -n "$groups" ]; then
    while IFS='	' read -r optional group file value; do
      echo 0 >"$group/cgroup.procs" || exit 73
    done <groups
  fi
  [ "$isolation" != none ] || cd "$HOME" || exit 74
  # bash calls it -u, dash and busybox -p.
  if [ -s nproc ] && read -r max <nproc; then
    ulimit -u "$max" 2>/dev/null || ulimit -p "$max" 2>/dev/null || exit 73
  fi
  umask 022
  unset OLDPWD
  # (Started in the background the agent ignores SIGINT and SIGQUIT; Node resets both for its children.)
  exec "$@" <&3 3<&-
) >out 2>&1 &
main=$!
exec 3<&-
started_of "$main"
printf '{"main":%s,"mainStart":"%s"}\n' "$main" "$started" >>record

# A signal interrupts `wait`; only the agent's end ends it.
trap : TERM INT HUP
while :; do
  wait "$main"
  code=$?
  kill -0 "$main" 2>/dev/null || break
done
out_of_memory=0
if [ -n "$memory_events" ]; then
  while read -r key value; do
    [ "$key" = oom_kill ] && out_of_memory=$value
  done 2>/dev/null <"$memory_events"
fi
if [ "$isolation" = none ]; then
  # A process that escaped may hold the log open indefinitely.
  tries=0
  while kill -0 "$log" 2>/dev/null && [ $tries -lt 100 ]; do
    sleep 0.01
    tries=$((tries + 1))
  done
else
  wait "$log"
fi
printf '{"pid":%s,"startTime":"%s","code":%s,"outOfMemory":%s}\n' $$ "$own" "$code" "$out_of_memory" >exit
drop_groups
exit 0
