# SPDX-License-Identifier: Apache-2.0
# Completion of warmbox for bash.

_warmbox_names() {
	warmbox --json "$@" 2> /dev/null | jq -r "$_warmbox_filter" 2> /dev/null
}

_warmbox() {
	local word=${COMP_WORDS[COMP_CWORD]} command= verb= i _warmbox_filter
	local commands="acquire bench doctor eval exec health help pool ps release renew run stats template version"

	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--socket) ((i++)) ;;
		-*) ;;
		*)
			if [ -z "$command" ]; then
				command=${COMP_WORDS[i]}
			elif [ -z "$verb" ]; then
				verb=${COMP_WORDS[i]}
			fi
			;;
		esac
	done
	case ${COMP_WORDS[COMP_CWORD - 1]} in
	--root | --kernel | --initramfs | --store | --socket | --csv | --html)
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
		return
		;;
	esac
	local words=
	case $command:$verb in
	:) words="$commands --json --socket --version --help" ;;
	template:) words="build list inspect verify remove" ;;
	template:build) words="--root --kernel --initramfs --memory --vcpus --cmdline --warm --resident --record --record-exec --timeout --store --json" ;;
	template:inspect | template:verify | template:remove | run: | eval: | acquire: | pool:)
		_warmbox_filter='.templates[].name'
		words=$(_warmbox_names template list)
		;;
	exec: | release:* | renew:)
		_warmbox_filter='.leases[].lease'
		words=$(_warmbox_names ps)
		;;
	renew:*) words="--ttl --json" ;;
	run:*) words="--stdin --env --cwd --timeout --wait --label --json --" ;;
	exec:*) words="--stdin --env --cwd --timeout --json --" ;;
	eval:*) words="--timeout --wait --label --json" ;;
	acquire:*) words="--ttl --wait --label --json" ;;
	pool:*) words="--min --max --set --shells --json" ;;
	bench:*) words="claim restore exec@ abuse@ burst refill image cold density soak peers --template --store --socket --quick --count --seconds --load --eval --json --csv --html" ;;
	ps:) words="--all --json" ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _warmbox warmbox
