/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What subcommands that talk to the daemon share: connecting, its errors in words, its answers as
 * JSON.
 */

#include "cli/cli.h"
#include "rpc/warmbox.h"

BASE_DEFINE_CLEANUP(struct warmbox_connection *, warmbox_disconnect)
BASE_DEFINE_CLEANUP(struct warmbox_agent *, warmbox_agent_free)
BASE_DEFINE_CLEANUP(struct warmbox_value *, warmbox_value_free)
#define _cleanup_connection_ _cleanup_(warmbox_disconnectp)
#define _cleanup_agent_	     _cleanup_(warmbox_agent_freep)
#define _cleanup_value_	     _cleanup_(warmbox_value_freep)

/* Connects to the daemon; prints the error itself. */
int cli_remote_connect(const struct cli *cli, struct warmbox_connection **ret_connection);

/* Prints a failure with what to do about it. template_name (may be NULL): the template that was
 * asked for; if it is not found, those that exist are named. Returns status. */
int cli_remote_failed(const struct cli *cli, struct warmbox_connection *connection,
		      const char *template_name, const struct warmbox_error *error, int status);

/* A new reference; NULL for what JSON cannot say. Bytes that are not UTF-8 come out as null. */
json_t *cli_json_from_msgpack(const msgpack_object *object);
json_t *cli_json_from_lease(const struct warmbox_lease *lease);

/* "name": value pairs; value in text form of a string key in a map, for tables. "-" when absent. */
uint64_t cli_map_number(const msgpack_object *map, const char *key);
/* A copy, owned by the caller; NULL when absent or without memory. */
char *cli_map_text(const msgpack_object *map, const char *key);

/* Options that acquiring shares: --ttl, --label, --wait. */
#define CLI_LABELS_MAX 32
struct cli_acquire {
	struct warmbox_acquire_params params;
	struct warmbox_label labels[CLI_LABELS_MAX];
};
int cli_acquire_label(const struct cli *cli, struct cli_acquire *acquire, char *text);
/* A lease is written as its id, a colon and its token, as warmbox acquire prints it; whoever runs
 * the daemon may leave the token out. Copies the id, cut off where it is too long for one; returns
 * the token, or NULL. */
const char *cli_lease_token(const char *text, char ret_id[WARMBOX_ID_LENGTH + 1]);
int cli_acquire_wait(const struct cli *cli, struct cli_acquire *acquire, const char *text);
