/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Tenants of the configuration.
 *
 * A key is found in a table and its value parsed into what the pool takes. Names of users and
 * groups are looked up once, at the start. Used at start only.
 */

#include "daemon/tenants.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>

#define OTHERS	   "*"
#define SEPARATORS " \t,"

void daemon_tenants_init(struct daemon_tenants *tenants)
{
	*tenants = (struct daemon_tenants){ .others = pool_tenant_config_others() };
}

static void free_config(struct pool_tenant_config *config)
{
	for (size_t i = 0; i < config->n_templates; i++) {
		free((char *)config->templates[i]);
	}
	free((void *)config->templates);
	free((uid_t *)config->uids);
	free((gid_t *)config->gids);
	free((char *)config->name);
}

void daemon_tenants_deinit(struct daemon_tenants *tenants)
{
	for (size_t i = 0; i < tenants->n; i++) {
		free_config(&tenants->named[i]);
	}
	free(tenants->named);
	free(tenants->seen);
	free_config(&tenants->others);
	*tenants = (struct daemon_tenants){ 0 };
}

static struct pool_tenant_config *find(struct daemon_tenants *tenants, const char *name,
				       unsigned **ret_seen)
{
	if (strcmp(name, OTHERS) == 0) {
		*ret_seen = &tenants->others_seen;
		return &tenants->others;
	}
	for (size_t i = 0; i < tenants->n; i++) {
		if (strcmp(tenants->named[i].name, name) == 0) {
			*ret_seen = &tenants->seen[i];
			return &tenants->named[i];
		}
	}
	return NULL;
}

const char *daemon_tenants_section(struct daemon_tenants *tenants, const char *name)
{
	struct pool_tenant_config *named, config = pool_tenant_config_others();
	unsigned *seen;

	if (find(tenants, name, &seen)) {
		return NULL;
	}
	if (!snapshot_name_is_valid(name)) {
		return "not the name of a tenant (a-z, 0-9, '.', '_', '-'; the first a letter or "
		       "digit; or *)";
	}
	if (tenants->n == DAEMON_TENANTS_MAX) {
		return "too many tenants";
	}
	named = reallocarray(tenants->named, tenants->n + 1, sizeof(*named));
	if (!named) {
		return "out of memory";
	}
	tenants->named = named;
	seen = reallocarray(tenants->seen, tenants->n + 1, sizeof(*seen));
	if (!seen) {
		return "out of memory";
	}
	tenants->seen = seen;
	config.name = strdup(name);
	if (!config.name) {
		return "out of memory";
	}
	seen[tenants->n] = 0;
	named[tenants->n++] = config;
	return NULL;
}

/* --- values --- */

static const char *parse_number(const char *text, uint64_t most, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0) {
		return "not a whole number";
	}
	return *ret > most ? "too large" : NULL;
}

static const char *set_number(unsigned *field, const char *value, unsigned least, unsigned most)
{
	uint64_t number;
	const char *wrong;

	if (strcmp(value, "unlimited") == 0) {
		*field = POOL_QUOTA_UNLIMITED;
		return NULL;
	}
	wrong = parse_number(value, most, &number);
	if (wrong || number < least) {
		return wrong ?: "too small";
	}
	*field = (unsigned)number;
	return NULL;
}

static const char *set_leases(struct pool_tenant_config *config, const char *value)
{
	return set_number(&config->quotas.leases, value, 0, POOL_QUOTA_LEASES_MAX);
}

static const char *set_rate(struct pool_tenant_config *config, const char *value)
{
	return set_number(&config->quotas.rate, value, 1, POOL_QUOTA_RATE_MAX);
}

static const char *set_burst(struct pool_tenant_config *config, const char *value)
{
	/* Without a bound there would be no rate either. */
	return strcmp(value, "unlimited") == 0
		       ? "not a whole number"
		       : set_number(&config->quotas.burst, value, 1, POOL_QUOTA_RATE_MAX);
}

static const char *set_queue(struct pool_tenant_config *config, const char *value)
{
	return set_number(&config->quotas.queue, value, 0, POOL_WAITERS_MAX);
}

static const char *set_admin(struct pool_tenant_config *config, const char *value)
{
	if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0) {
		return "neither yes nor no";
	}
	config->admin = strcmp(value, "yes") == 0;
	return NULL;
}

static const char *parse_user(const char *word, uint32_t *ret_id)
{
	const struct passwd *user;
	uint64_t number;

	if (!parse_number(word, UINT32_MAX - 1, &number)) {
		*ret_id = (uint32_t)number;
		return NULL;
	}
	user = getpwnam(word);
	if (!user) {
		return "there is no such user";
	}
	*ret_id = user->pw_uid;
	return NULL;
}

static const char *parse_group(const char *word, uint32_t *ret_id)
{
	const struct group *group;
	uint64_t number;

	if (!parse_number(word, UINT32_MAX - 1, &number)) {
		*ret_id = (uint32_t)number;
		return NULL;
	}
	group = getgrnam(word);
	if (!group) {
		return "there is no such group";
	}
	*ret_id = group->gr_gid;
	return NULL;
}

_Static_assert(sizeof(uid_t) == sizeof(uint32_t) && sizeof(gid_t) == sizeof(uint32_t),
	       "one parser for both");

static const char *set_ids(const uint32_t **field, size_t *ret_n, const char *value,
			   const char *(*parse)(const char *word, uint32_t *ret_id))
{
	_cleanup_free_ char *copy = strdup(value);
	uint32_t *ids = calloc(DAEMON_TENANT_IDS_MAX, sizeof(*ids));
	const char *wrong = copy && ids ? NULL : "out of memory";
	char *rest = copy;

	*field = ids;
	for (char *word; !wrong && (word = strtok_r(rest, SEPARATORS, &rest));) {
		wrong = *ret_n == DAEMON_TENANT_IDS_MAX ? "too many" : parse(word, &ids[*ret_n]);
		*ret_n += !wrong;
	}
	return wrong ?: *ret_n == 0 ? "empty" : NULL;
}

static const char *set_uids(struct pool_tenant_config *config, const char *value)
{
	return set_ids(&config->uids, &config->n_uids, value, parse_user);
}

static const char *set_gids(struct pool_tenant_config *config, const char *value)
{
	return set_ids(&config->gids, &config->n_gids, value, parse_group);
}

static const char *set_templates(struct pool_tenant_config *config, const char *value)
{
	_cleanup_free_ char *copy = strdup(value);
	const char **names = calloc(DAEMON_TENANT_TEMPLATES_MAX, sizeof(*names));
	char *rest = copy;

	config->templates = names;
	if (!copy || !names) {
		return "out of memory";
	}
	for (char *word; (word = strtok_r(rest, SEPARATORS, &rest));) {
		if (!snapshot_name_is_valid(word)) {
			return "not the name of a template";
		}
		if (config->n_templates == DAEMON_TENANT_TEMPLATES_MAX) {
			return "too many";
		}
		names[config->n_templates] = strdup(word);
		if (!names[config->n_templates]) {
			return "out of memory";
		}
		config->n_templates++;
	}
	return NULL;
}

static const struct {
	const char *name;
	const char *(*set)(struct pool_tenant_config *config, const char *value);
	bool who; /* says who it is: not for the others */
} keys[] = {
	{ "uid", set_uids, true },
	{ "gid", set_gids, true },
	{ "templates", set_templates, false },
	{ "leases", set_leases, false },
	{ "rate", set_rate, false },
	{ "burst", set_burst, false },
	{ "queue", set_queue, false },
	{ "admin", set_admin, false },
};

const char *daemon_tenants_set(struct daemon_tenants *tenants, const char *name, const char *key,
			       const char *value)
{
	const char *wrong = daemon_tenants_section(tenants, name);
	struct pool_tenant_config *config;
	unsigned *seen;

	if (wrong) {
		return wrong;
	}
	config = find(tenants, name, &seen);
	for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
		if (strcmp(keys[i].name, key) != 0) {
			continue;
		}
		if (keys[i].who && config == &tenants->others) {
			return "[tenant *] is for those that no section names";
		}
		if (*seen & 1u << i) {
			return "given twice";
		}
		*seen |= 1u << i;
		return keys[i].set(config, value);
	}
	return "no such key in a section of a tenant";
}

/* --- together --- */

/* A user in two sections would be a tenant by their order. */
static bool shares_user(const struct pool_tenant_config *a, const struct pool_tenant_config *b)
{
	for (size_t i = 0; i < a->n_uids; i++) {
		for (size_t j = 0; j < b->n_uids; j++) {
			if (a->uids[i] == b->uids[j]) {
				return true;
			}
		}
	}
	return false;
}

static int complete(struct pool_tenant_config *config, const char *name, struct base_error *error)
{
	struct pool_quotas *quotas = &config->quotas;

	if (quotas->rate == POOL_QUOTA_UNLIMITED && quotas->burst != POOL_QUOTA_UNLIMITED) {
		return base_error_set(error, -EINVAL, "[tenant %s]: a burst without a rate", name);
	}
	if (quotas->burst == POOL_QUOTA_UNLIMITED) {
		quotas->burst = quotas->rate; /* a second's worth */
	}
	return 0;
}

int daemon_tenants_complete(struct daemon_tenants *tenants, struct base_error *error)
{
	int r = complete(&tenants->others, OTHERS, error);

	for (size_t i = 0; r == 0 && i < tenants->n; i++) {
		struct pool_tenant_config *config = &tenants->named[i];

		if (config->n_uids == 0 && config->n_gids == 0) {
			return base_error_set(error, -EINVAL,
					      "[tenant %s]: neither uid nor gid says who that is",
					      config->name);
		}
		for (size_t j = 0; j < i; j++) {
			if (shares_user(config, &tenants->named[j])) {
				return base_error_set(error, -EINVAL,
						      "[tenant %s]: a user of it is also of "
						      "[tenant %s]",
						      config->name, tenants->named[j].name);
			}
		}
		r = complete(config, config->name, error);
	}
	return r;
}
