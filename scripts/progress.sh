# SPDX-License-Identifier: Apache-2.0
#
# Sourced by scripts: runs long commands without leaving the person at the terminal alone.
#
#   progress_run LABEL DETAIL COMMAND…
#       Runs COMMAND with the standard output and error that progress_run itself was given. After
#       two seconds, and then every five (every second on a terminal, on one line), writes
#       "LABEL: 12 s, <what the function DETAIL prints>" to the script's standard error. DETAIL may
#       be ":". Returns COMMAND's status. On SIGINT or SIGTERM the whole of COMMAND's process group
#       is ended first, so a cleanup trap of the script finds nobody writing any more.

# The script's own standard error, for callers that redirect progress_run's.
exec {progress_fd}>&2

progress_child=

progress_stop() {
	if [ -n "$progress_child" ]; then
		kill -TERM -- "-$progress_child" 2> /dev/null || :
		wait "$progress_child" 2> /dev/null || :
		progress_child=
	fi
}

progress_show() {
	if [ -t "$progress_fd" ]; then
		printf '\r\033[K%s' "$1" >&"$progress_fd"
	else
		printf '%s\n' "$1" >&"$progress_fd"
	fi
}

progress_run() {
	local label=$1 detail=$2 start=$SECONDS shown=0 next=2 every=5 elapsed text status=0
	shift 2

	[ -t "$progress_fd" ] && every=1
	# A process group of its own, so that all of it can be ended together.
	set -m
	"$@" < /dev/null &
	progress_child=$!
	set +m
	trap 'progress_stop; exit 130' INT
	trap 'progress_stop; exit 143' TERM HUP
	while kill -0 "$progress_child" 2> /dev/null; do
		# Interrupted by the signals above, unlike a foreground sleep.
		sleep 0.2 &
		wait $! || :
		elapsed=$((SECONDS - start))
		if [ "$elapsed" -ge "$next" ]; then
			text=$("$detail" 2> /dev/null || :)
			progress_show "$label: $elapsed s${text:+, $text}"
			shown=1
			next=$((elapsed + every))
		fi
	done
	wait "$progress_child" || status=$?
	progress_child=
	trap - INT TERM HUP
	if [ "$shown" = 1 ]; then
		progress_show "$label: $((SECONDS - start)) s, $([ "$status" = 0 ] && echo done || echo "failed ($status)")"
		[ -t "$progress_fd" ] && printf '\n' >&"$progress_fd"
	fi
	return "$status"
}
