/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Started programs: their pipes, their end, their killing.
 */

#include "guest/agent/connection.h"

#include <sys/types.h>

enum agent_process_state {
	/* Its output goes to its connection, which answers when it ends. */
	AGENT_PROCESS_RUNNING,
	/* The resident process before it is ready. Its connection waits for that. No output is
	 * read: whoever attaches gets it. */
	AGENT_PROCESS_STARTING,
	/* The resident process waiting for a claimant, running or already over. No connection. */
	AGENT_PROCESS_WAITING,
	/* Killed because its connection went away, or answered already. Only to be reaped. */
	AGENT_PROCESS_ENDING,
	/* Reaped and answered. Only to be freed. */
	AGENT_PROCESS_RETIRED,
};

struct agent_stream {
	struct agent_source source; /* our end; fd -1 when closed or absent */
	struct agent_process *process;
	bool ready;	   /* readable or, for stdin, writable, as far as we know */
	bool watched;	   /* in the epoll set */
	size_t tail_bytes; /* read after the end of the process */
};

struct agent_process {
	struct base_link link; /* in its connection's processes or the server's orphans */
	struct base_link all;  /* in the server's processes once it is started */
	struct agent_server *server;
	struct agent_connection *connection;
	enum agent_process_state state;
	uint32_t id; /* of the request to be answered */
	pid_t pid;   /* also its process group and session */
	bool touch;  /* its answer is that of an identity; see struct agent_process_params */
	bool exited; /* reaped; the pid is no longer ours */
	bool over;   /* the status is known: it was reaped, or it said so itself */
	int status;  /* as wait(2) gives it */

	struct agent_stream in, out, err, ready;
	/* The program's ends of the output pipes. Kept so that all is closed with one call at the
	 * end; the end is told by SIGCHLD, not by the pipes. */
	int out_write_fd, err_write_fd;

	/* How much both streams together may still say. */
	uint64_t output_max_bytes, output_left_bytes; /* UINT64_MAX: no limit */
	bool output_exceeded; /* there was more: it was killed, and nothing is read any more */
};

struct agent_process_params {
	uint32_t id;
	char *const *argv; /* borrowed, as all here */
	char *const *envp;
	const char *path; /* where to look for argv[0], as $PATH */
	const char *cwd;
	bool with_stdin;
	bool resident;
	uint64_t output_max_bytes; /* UINT64_MAX: no limit */
	/* The program runs for what running it does to the memory of the guest, and the request is
	 * an `identity`: output is dropped, and the answer, which is the last thing done, is that
	 * it ended well. */
	bool touch;
};

/*
 * Starts a program on behalf of the connection. 0, or -errno with *ret_step, what could not be
 * done: -ENOENT and the like are about the program or the working directory.
 */
int agent_process_start(struct agent_connection *connection,
			const struct agent_process_params *params, const char **ret_step);

/* Makes ready what the next start needs, so that it does not have to. 0 or -errno; a start that
 * finds nothing ready does it itself. */
int agent_process_prepare_next(struct agent_server *server);

/* The process of a request that is still open on the connection, or NULL. */
struct agent_process *agent_process_find(struct agent_connection *connection, uint32_t id);

/* Another limit for what is said from now on. */
void agent_process_limit_output(struct agent_process *process, uint64_t max_bytes);

/* Makes the waiting resident process a request of the connection. */
void agent_process_attach(struct agent_process *process, struct agent_connection *connection,
			  uint32_t id);

/* Sends the signal to its process group, SIGKILL to its whole session. 0 or -errno. */
int agent_process_signal(struct agent_process *process, int signal);

/*
 * Writes to its standard input without waiting. Bytes taken (which may be all: what nobody will
 * read is dropped); 0: the process does not take any now.
 */
size_t agent_process_write(struct agent_process *process, const uint8_t *data, size_t size);
void agent_process_close_stdin(struct agent_process *process);

/*
 * Moves output to the connection while it has room, and answers when the process is over; it is
 * then freed. True when there is more to do as soon as there is room.
 */
bool agent_process_pump(struct agent_process *process);

/* The connection goes away: kills the session, and leaves the process to be reaped. */
void agent_process_abandon(struct agent_process *process);

/* Collects a process that has ended; the server's handler of SIGCHLD. agent_process_tidy() looks
 * for more. */
void agent_process_reap(struct agent_server *server);

/*
 * What nobody waits for, and so comes when answers are on their way: frees what was answered, looks
 * for more that has ended, and makes ready what the next start needs. True when connections have
 * something to do because of it.
 */
bool agent_process_tidy(struct agent_server *server);

/* Waits for the processes that were killed. For the moment before a snapshot only. */
void agent_process_reap_ending(struct agent_server *server);

/* Frees a process that is over or was never started; one that runs is killed and reaped first. */
void agent_process_destroy(struct agent_process *process);
