/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A warmboxd of our own for one measurement: its socket, its runtime directory and, for the tiny
 * guest, its store lie in a temporary directory that is removed afterwards. It is asked to end by
 * SIGTERM, and killed when it does not; if we are killed it ends by itself. Main thread.
 */

#include "cli/bench.h"
#include "rpc/warmbox.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_TRIES    600
#define STOP_TRIES     600
#define TRY_MS	       50
#define LOG_TAIL_BYTES 300

char *cli_bench_program(const char *folder, const char *name, const char *installed_in)
{
	char self[4096];
	char *path = NULL;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	self[MAX(n, (ssize_t)0)] = '\0';
	slash = strrchr(self, '/');
	if (slash) {
		*slash = '\0';
		if (asprintf(&path, "%s/../%s/%s", self, folder, name) < 0) {
			return NULL;
		}
		if (access(path, X_OK) == 0) {
			return path;
		}
		free(path);
	}
	return asprintf(&path, "%s/%s", installed_in, name) < 0 ? NULL : path;
}

/* A child that ends when we do, with its output in the log. */
static pid_t start(const char *log, char *const argv[])
{
	pid_t parent = getpid(), pid;
	int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	sigset_t none;

	fflush(NULL);
	pid = fd >= 0 && null >= 0 ? fork() : -1;
	if (pid == 0) {
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		/* A Ctrl-C in the terminal is ours; we decide when it ends. */
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() == parent && dup2(null, STDIN_FILENO) >= 0 &&
		    dup2(fd, STDOUT_FILENO) >= 0 && dup2(fd, STDERR_FILENO) >= 0) {
			execv(argv[0], argv);
		}
		_exit(127);
	}
	if (fd >= 0) {
		close(fd);
	}
	if (null >= 0) {
		close(null);
	}
	return pid;
}

/* The end of the log, in one line. */
static const char *log_tail(const char *path, char *buffer, size_t size)
{
	FILE *file = fopen(path, "re");
	size_t n = 0;

	if (file) {
		if (fseek(file, 1 - (long)size, SEEK_END) < 0) {
			rewind(file);
		}
		n = fread(buffer, 1, size - 1, file);
		fclose(file);
	}
	buffer[n] = '\0';
	for (char *c = buffer; *c; c++) {
		*c = *c == '\n' ? ' ' : *c;
	}
	return buffer;
}

static int run_to_end(const char *log, char *const argv[], struct base_error *error)
{
	char tail[LOG_TAIL_BYTES];
	pid_t pid = start(log, argv);
	int status = 0;

	if (pid < 0) {
		return base_error_set_errno(error, -errno, "cannot start %s", argv[0]);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		return base_error_set(error, -EIO, "%s failed: %s", argv[0],
				      log_tail(log, tail, sizeof(tail)));
	}
	return 0;
}

static bool serves(const char *socket)
{
	struct warmbox_connection *connection = NULL;

	if (warmbox_connect(socket, &connection, NULL) < 0) {
		return false;
	}
	warmbox_disconnect(connection);
	return true;
}

static int wait_serving(struct cli_bench_daemon *daemon, const char *log, struct base_error *error)
{
	char tail[LOG_TAIL_BYTES];

	for (int i = 0; i < START_TRIES; i++) {
		if (serves(daemon->socket)) {
			return 0;
		}
		if (waitpid(daemon->pid, NULL, WNOHANG) == daemon->pid) {
			daemon->pid = 0;
			return base_error_set(error, -EIO, "warmboxd ended: %s",
					      log_tail(log, tail, sizeof(tail)));
		}
		poll(NULL, 0, TRY_MS);
	}
	return base_error_set(error, -ETIMEDOUT, "warmboxd does not serve: %s",
			      log_tail(log, tail, sizeof(tail)));
}

static int start_in(struct cli_bench_daemon *daemon, const char *store, struct base_error *error)
{
	_cleanup_free_ char *program = cli_bench_program("daemon", "warmboxd", CLI_SBIN_PATH);
	_cleanup_free_ char *make_tiny = cli_bench_program("bench", "make-tiny", CLI_LIBEXEC_PATH);
	char own_store[64], runtime[64], log[64], config[64];
	int r = 0;

	snprintf(own_store, sizeof(own_store), "%s/store", daemon->directory);
	snprintf(runtime, sizeof(runtime), "%s/run", daemon->directory);
	snprintf(log, sizeof(log), "%s/log", daemon->directory);
	snprintf(config, sizeof(config), "%s/conf", daemon->directory);
	snprintf(daemon->socket, sizeof(daemon->socket), "%s/socket", daemon->directory);
	if (!program || !make_tiny) {
		return base_error_set_errno(error, -ENOMEM, "starting warmboxd");
	}
	if (!store) {
		char *const argv[] = { make_tiny, own_store, (char *)CLI_BENCH_TINY, NULL };

		r = run_to_end(log, argv, error);
	}
	if (r < 0) {
		return r;
	}

	/* An empty configuration: what the machine's own says is not for this one. */
	int fd = open(config, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0) {
		return base_error_set_errno(error, -errno, "%s", config);
	}
	close(fd);

	char *const argv[] = { program,
			       (char *)"--config",
			       config,
			       (char *)"--socket",
			       daemon->socket,
			       (char *)"--runtime-dir",
			       runtime,
			       (char *)"--store",
			       (char *)(store ?: own_store),
			       (char *)"--log-level",
			       (char *)"warning",
			       NULL };

	daemon->pid = start(log, argv);
	if (daemon->pid < 0) {
		daemon->pid = 0;
		return base_error_set_errno(error, -errno, "cannot start %s", program);
	}
	return wait_serving(daemon, log, error);
}

int cli_bench_daemon_start(struct cli_bench_daemon *daemon, const char *store,
			   struct base_error *error)
{
	int r;

	*daemon = (struct cli_bench_daemon){ .directory = "/tmp/warmbox-bench-XXXXXX" };
	if (!mkdtemp(daemon->directory)) {
		r = -errno;
		daemon->directory[0] = '\0';
		return base_error_set_errno(error, r, "cannot make a directory in /tmp");
	}
	r = start_in(daemon, store, error);
	if (r < 0) {
		cli_bench_daemon_stop(daemon);
	}
	return r;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

void cli_bench_daemon_stop(struct cli_bench_daemon *daemon)
{
	if (daemon->pid > 0) {
		kill(daemon->pid, SIGTERM);
		for (int i = 0; daemon->pid > 0 && i < STOP_TRIES; i++) {
			if (waitpid(daemon->pid, NULL, WNOHANG) == daemon->pid) {
				daemon->pid = 0;
			} else {
				poll(NULL, 0, TRY_MS);
			}
		}
	}
	if (daemon->pid > 0) {
		kill(daemon->pid, SIGKILL);
		while (waitpid(daemon->pid, NULL, 0) < 0 && errno == EINTR) {
		}
		daemon->pid = 0;
	}
	if (daemon->directory[0]) {
		nftw(daemon->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
		daemon->directory[0] = '\0';
	}
}
