/* SPDX-License-Identifier: Apache-2.0 */

/*
 * warmboxd: keeps sandboxes parked and hands them out.
 *
 * Options, configuration, then daemon_run(). Exit status: 0 after an orderly end, 1 after a
 * failure, 2 for a wrong command line or configuration.
 */

#include "base/log.h"
#include "daemon/config.h"
#include "daemon/run.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXIT_USAGE 2

static const char help[] =
	"Usage: warmboxd [OPTION…]\n"
	"Keeps microVMs booted and hands each out once.\n"
	"\n"
	"  --config FILE      configuration (default " DAEMON_CONFIG_PATH ", if it is there)\n"
	"  --socket PATH      socket to serve (default DIR/" DAEMON_SOCKET_NAME ")\n"
	"  --store DIR        snapshot store (default " DAEMON_STORE ")\n"
	"  --runtime-dir DIR  directory for sockets (default " DAEMON_RUNTIME_DIR ")\n"
	"  --vmm PROGRAM      the warmbox-vmm program (or environment WARMBOX_VMM)\n"
	"  --log-level LEVEL  error, warning, info (default) or debug\n"
	"  --version          print the version\n"
	"  --help             print this\n";

enum option_id {
	OPTION_CONFIG = 256,
	OPTION_SOCKET,
	OPTION_STORE,
	OPTION_RUNTIME_DIR,
	OPTION_VMM,
	OPTION_LOG_LEVEL,
	OPTION_VERSION,
	OPTION_HELP,
};

static const struct option options[] = {
	{ "config", required_argument, NULL, OPTION_CONFIG },
	{ "socket", required_argument, NULL, OPTION_SOCKET },
	{ "store", required_argument, NULL, OPTION_STORE },
	{ "runtime-dir", required_argument, NULL, OPTION_RUNTIME_DIR },
	{ "vmm", required_argument, NULL, OPTION_VMM },
	{ "log-level", required_argument, NULL, OPTION_LOG_LEVEL },
	{ "version", no_argument, NULL, OPTION_VERSION },
	{ "help", no_argument, NULL, OPTION_HELP },
	{ 0 },
};

/* What the command line says; NULL: nothing. Borrowed from argv. */
struct arguments {
	const char *config;
	const char *socket;
	const char *store;
	const char *runtime_dir;
	const char *vmm;
};

static int set_log_level(const char *name)
{
	static const struct {
		const char *name;
		enum base_log_level level;
	} levels[] = {
		{ "error", BASE_LOG_ERROR },
		{ "warning", BASE_LOG_WARNING },
		{ "info", BASE_LOG_INFO },
		{ "debug", BASE_LOG_DEBUG },
	};

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		if (strcmp(name, levels[i].name) == 0) {
			base_log_set_level(levels[i].level);
			return 0;
		}
	}
	fprintf(stderr, "warmboxd: %s: no such log level; error, warning, info, debug\n", name);
	return -EINVAL;
}

/* 1: go on. 0: done. -EINVAL: wrong. */
static int parse_arguments(int argc, char **argv, struct arguments *arguments)
{
	int id;

	arguments->vmm = getenv("WARMBOX_VMM");
	while ((id = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (id) {
		case OPTION_CONFIG:
			arguments->config = optarg;
			break;
		case OPTION_SOCKET:
			arguments->socket = optarg;
			break;
		case OPTION_STORE:
			arguments->store = optarg;
			break;
		case OPTION_RUNTIME_DIR:
			arguments->runtime_dir = optarg;
			break;
		case OPTION_VMM:
			arguments->vmm = optarg;
			break;
		case OPTION_LOG_LEVEL:
			if (set_log_level(optarg) < 0) {
				return -EINVAL;
			}
			break;
		case OPTION_VERSION:
			puts("warmboxd " WARMBOX_VERSION);
			return 0;
		case OPTION_HELP:
			fputs(help, stdout);
			return 0;
		default:
			return -EINVAL;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "warmboxd: %s: no arguments are taken; see --help\n", argv[optind]);
		return -EINVAL;
	}
	return 1;
}

/* Paths of the command line are made absolute, because clients get some of them. */
static int override(char **field, const char *path, struct base_error *error)
{
	_cleanup_free_ char *directory = NULL;
	_cleanup_free_ char *absolute = NULL;

	if (!path) {
		return 0;
	}
	if (path[0] != '/') {
		directory = getcwd(NULL, 0);
		if (!directory || asprintf(&absolute, "%s/%s", directory, path) < 0) {
			absolute = NULL;
			return base_error_set(error, -ENOENT, "%s: cannot be made absolute", path);
		}
		path = absolute;
	}
	if (daemon_config_override(field, path) < 0) {
		return base_error_set_errno(error, -ENOMEM, "configuration");
	}
	return 0;
}

static int load_config(const struct arguments *arguments, struct daemon_config *config,
		       struct base_error *error)
{
	const char *path = arguments->config ?: DAEMON_CONFIG_PATH;
	int r = daemon_config_load(config, path, error);

	if (r == -ENOENT && arguments->config) {
		return base_error_set(error, r, "%s: there is no such file", path);
	}
	if (r < 0 && r != -ENOENT) {
		return r;
	}
	r = override(&config->socket, arguments->socket, error);
	r = r == 0 ? override(&config->store, arguments->store, error) : r;
	r = r == 0 ? override(&config->runtime_dir, arguments->runtime_dir, error) : r;
	r = r == 0 ? override(&config->vmm, arguments->vmm, error) : r;
	if (r == 0 && daemon_config_complete(config) < 0) {
		r = base_error_set_errno(error, -ENOMEM, "configuration");
	}
	return r;
}

int main(int argc, char **argv)
{
	_cleanup_(daemon_config_deinit) struct daemon_config config;
	struct arguments arguments = { 0 };
	struct base_error error = { 0 };
	int r;

	daemon_config_init(&config);
	r = parse_arguments(argc, argv, &arguments);
	if (r <= 0) {
		return r < 0 ? EXIT_USAGE : EXIT_SUCCESS;
	}
	if (load_config(&arguments, &config, &error) < 0) {
		log_error("%s", error.text);
		return EXIT_USAGE;
	}
	if (daemon_run(&config, &error) < 0) {
		log_error("%s", error.text);
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
