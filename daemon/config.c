/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Reading warmboxd.conf with libinih.
 *
 * libinih calls back for each key; its handler finds the key in a table and parses the value. The
 * first failure is kept, with the line that libinih had read by then. Used at start only.
 */

#include "daemon/config.h"

#include "pool/pool.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>

#define TEMPLATE_PREFIX "template "
#define TENANT_PREFIX	"tenant "
#define LIMITS_SECTION	"limits"

enum kind {
	KIND_PATH, /* absolute */
	KIND_STRING,
	KIND_UNSIGNED,
	KIND_U64,
	KIND_CHOICE,
	KIND_UIDS, /* FIRST-LAST */
};

struct key {
	const char *section;
	const char *name;
	enum kind kind;
	size_t offset;		  /* in struct daemon_config */
	uint64_t max;		  /* of numbers */
	const char *const *names; /* of choices, in the order of their values; the last is NULL */
};

static const char *const touch_names[] = {
	[POOL_TOUCH_AUTO] = "auto",
	[POOL_TOUCH_NEVER] = "never",
	[POOL_TOUCH_ALWAYS] = "always",
	NULL,
};

static const char *const cgroups_names[] = {
	[POOL_CGROUPS_OFF] = "off",
	[POOL_CGROUPS_AUTO] = "auto",
	[POOL_CGROUPS_REQUIRED] = "required",
	NULL,
};

static const char *const jail_level_names[] = {
	[POOL_JAIL_NONE] = "none",
	[POOL_JAIL_ROOTLESS] = "rootless",
	[POOL_JAIL_FULL] = "full",
	[POOL_JAIL_AUTO] = "auto",
	NULL,
};

static const char *const jail_network_names[] = {
	[POOL_JAIL_NETWORK_OWN] = "own",
	[POOL_JAIL_NETWORK_SHARED] = "shared",
	NULL,
};

#define FIELD(field) offsetof(struct daemon_config, field)
static const struct key keys[] = {
	{ "daemon", "socket", KIND_PATH, FIELD(socket), 0 },
	{ "daemon", "group", KIND_STRING, FIELD(group), 0 },
	{ "daemon", "runtime_dir", KIND_PATH, FIELD(runtime_dir), 0 },
	{ "daemon", "store", KIND_PATH, FIELD(store), 0 },
	{ "daemon", "vmm", KIND_PATH, FIELD(vmm), 0 },
	{ "daemon", "spawner", KIND_PATH, FIELD(spawner), 0 },
	{ "daemon", "pager", KIND_PATH, FIELD(pager), 0 },
	{ "daemon", "journal", KIND_PATH, FIELD(journal), 0 },
	{ "daemon", "orphan_timeout_s", KIND_UNSIGNED, FIELD(orphan_timeout_s),
	  DAEMON_ORPHAN_TIMEOUT_MAX_S },
	{ "pool", "fill_limit_mib", KIND_UNSIGNED, FIELD(fill_limit_mib),
	  DAEMON_FILL_LIMIT_MAX_MIB },
	{ "pool", "default_shells", KIND_UNSIGNED, FIELD(keep.shells), POOL_SHELLS_MAX },
	{ "pool", "touch", KIND_CHOICE, FIELD(touch), 0, touch_names },
	{ "pool", "restore_nice", KIND_UNSIGNED, FIELD(restore_nice), DAEMON_NICE_MAX },
	{ "pool", "default_target", KIND_UNSIGNED, FIELD(keep.target), POOL_TARGET_MAX },
	{ "pool", "default_min", KIND_UNSIGNED, FIELD(keep.min), POOL_TARGET_MAX },
	{ "pool", "default_max", KIND_UNSIGNED, FIELD(keep.max), POOL_TARGET_MAX },
	{ "pool", "memory_floor_percent", KIND_UNSIGNED, FIELD(memory_floor_percent), 100 },
	{ "pool", "restore_concurrency", KIND_UNSIGNED, FIELD(restore_concurrency),
	  DAEMON_CONCURRENCY_MAX },
	{ "pool", "identity_timeout_ms", KIND_U64, FIELD(identity_timeout_ms),
	  DAEMON_TIMEOUT_MAX_MS },
	{ "pool", "acquire_timeout_ms", KIND_U64, FIELD(acquire_timeout_ms),
	  DAEMON_TIMEOUT_MAX_MS },
	{ "jail", "level", KIND_CHOICE, FIELD(jail_level), 0, jail_level_names },
	{ "jail", "network", KIND_CHOICE, FIELD(jail_network), 0, jail_network_names },
	{ "jail", "uids", KIND_UIDS, FIELD(jail_uids), 0 },
	{ LIMITS_SECTION, "cgroups", KIND_CHOICE, FIELD(cgroups), 0, cgroups_names },
};

struct parse {
	struct daemon_config *config;
	const char *path;
	FILE *file;
	unsigned line;
	uint64_t seen; /* bit n: keys[n] was given */
	struct base_error *error;
	int result;
};

/* Keeps the first failure. Returns what libinih takes for one. */
static int fail(struct parse *parse, const char *what, const char *why)
{
	if (parse->result == 0) {
		parse->result = base_error_set(parse->error, -EINVAL, "%s:%u: %s: %s", parse->path,
					       parse->line, what, why);
	}
	return 0;
}

/* NULL, or what is wrong. */
static const char *parse_number(const char *text, uint64_t max, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0) {
		return "not a whole number";
	}
	return *ret > max ? "too large" : NULL;
}

static const char *set_string(char **field, const char *value)
{
	if (value[0] == '\0') {
		return "empty";
	}
	return daemon_config_override(field, value) < 0 ? "out of memory" : NULL;
}

static const char *set_choice(unsigned *field, const char *const *names, const char *value)
{
	for (unsigned i = 0; names[i]; i++) {
		if (strcmp(value, names[i]) == 0) {
			*field = i;
			return NULL;
		}
	}
	return "none of its choices";
}

/* Root is no one's own. */
static const char *set_uids(struct daemon_uids *uids, const char *value)
{
	unsigned first, last;
	int length = 0;

	if (sscanf(value, "%10u-%10u%n", &first, &last, &length) != 2 || value[length] != '\0' ||
	    value[0] < '0' || value[0] > '9') {
		return "not FIRST-LAST";
	}
	if (first == 0 || first > last || last > INT32_MAX) {
		return "not a range of user ids above 0";
	}
	if (last - first >= POOL_JAIL_UIDS_MAX) {
		return "too large";
	}
	*uids = (struct daemon_uids){ first, last };
	return NULL;
}

static const char *set_value(struct daemon_config *config, const struct key *key, const char *value)
{
	char *field = (char *)config + key->offset;
	const char *wrong;
	uint64_t number;

	switch (key->kind) {
	case KIND_PATH:
		if (value[0] != '/') {
			return "not an absolute path";
		}
		return set_string((char **)(void *)field, value);
	case KIND_STRING:
		return set_string((char **)(void *)field, value);
	case KIND_UNSIGNED:
		wrong = parse_number(value, key->max, &number);
		if (!wrong) {
			*(unsigned *)(void *)field = (unsigned)number;
		}
		return wrong;
	case KIND_U64:
		wrong = parse_number(value, key->max, &number);
		if (!wrong) {
			*(uint64_t *)(void *)field = number;
		}
		return wrong;
	case KIND_UIDS:
		return set_uids((struct daemon_uids *)(void *)field, value);
	case KIND_CHOICE:
		return set_choice((unsigned *)(void *)field, key->names, value);
	}
	return "not known";
}

/* --- limits --- */

#define LIMIT(field) #field, offsetof(struct daemon_limits, field)
/* For [limits], and for each template that says otherwise. */
static const struct {
	const char *name;
	size_t offset; /* in struct daemon_limits */
	unsigned max, unless_said;
} limit_keys[] = {
	{ LIMIT(cpu_percent), DAEMON_CPU_PERCENT_MAX, 0 },
	{ LIMIT(cpu_weight), POOL_CGROUP_WEIGHT_MAX, POOL_CGROUP_WEIGHT_DEFAULT },
	{ LIMIT(memory_mib), DAEMON_MEMORY_MAX_MIB, 0 },
	{ LIMIT(memory_overhead_mib), DAEMON_MEMORY_MAX_MIB, DAEMON_MEMORY_OVERHEAD_MIB },
	{ LIMIT(swap_mib), DAEMON_MEMORY_MAX_MIB, 0 },
	{ LIMIT(pids), DAEMON_PIDS_MAX, DAEMON_PIDS },
	{ LIMIT(io_weight), POOL_CGROUP_IO_WEIGHT_MAX, 0 },
	{ LIMIT(disk_mib_s), DAEMON_DISK_MAX_MIB, 0 },
	{ LIMIT(disk_burst_mib), DAEMON_DISK_MAX_MIB, 0 },
	{ LIMIT(disk_iops), DAEMON_DISK_MAX_IOPS, 0 },
	{ LIMIT(disk_iops_burst), DAEMON_DISK_MAX_IOPS, 0 },
	{ LIMIT(console_kib_s), DAEMON_CONSOLE_MAX_KIB, DAEMON_CONSOLE_KIB },
	{ LIMIT(vsock_connections), DAEMON_VSOCK_CONNECTIONS, DAEMON_VSOCK_CONNECTIONS },
	{ LIMIT(vsock_buffer_kib), DAEMON_VSOCK_BUFFER_KIB, DAEMON_VSOCK_BUFFER_KIB },
	{ LIMIT(ttl_max_s), DAEMON_TTL_MAX_S, 0 },
};

static unsigned *limit_field(struct daemon_limits *limits, size_t i)
{
	return (unsigned *)(void *)((char *)limits + limit_keys[i].offset);
}

static void limits_unsaid(struct daemon_limits *limits)
{
	for (size_t i = 0; i < ARRAY_SIZE(limit_keys); i++) {
		*limit_field(limits, i) = DAEMON_UNSAID;
	}
}

/* What is not said is as in defaults, or as built in where these do not say either. */
static void complete_limits(struct daemon_limits *limits, struct daemon_limits *defaults)
{
	for (size_t i = 0; i < ARRAY_SIZE(limit_keys); i++) {
		unsigned *field = limit_field(limits, i);

		if (*field == DAEMON_UNSAID) {
			*field = defaults ? *limit_field(defaults, i) : limit_keys[i].unless_said;
		}
	}
}

/* 1: taken, 0: it is wrong, and said; -ENOENT: no such key. */
static int handle_limit(struct parse *parse, struct daemon_limits *limits, const char *key,
			const char *value)
{
	const char *wrong;
	uint64_t number;

	for (size_t i = 0; i < ARRAY_SIZE(limit_keys); i++) {
		if (strcmp(key, limit_keys[i].name) != 0) {
			continue;
		}
		wrong = parse_number(value, limit_keys[i].max, &number);
		if (!wrong && *limit_field(limits, i) != DAEMON_UNSAID) {
			wrong = "given twice";
		}
		if (wrong) {
			return fail(parse, key, wrong);
		}
		*limit_field(limits, i) = (unsigned)number;
		return 1;
	}
	return -ENOENT;
}

/* --- templates --- */

#define KEEP_UNSAID                                                        \
	{                                                                  \
		DAEMON_UNSAID, DAEMON_UNSAID, DAEMON_UNSAID, DAEMON_UNSAID \
	}

static const struct {
	const char *name;
	size_t offset; /* in struct daemon_keep */
	uint64_t max;
} template_keys[] = {
	{ "target", offsetof(struct daemon_keep, target), POOL_TARGET_MAX },
	{ "min", offsetof(struct daemon_keep, min), POOL_TARGET_MAX },
	{ "max", offsetof(struct daemon_keep, max), POOL_TARGET_MAX },
	{ "shells", offsetof(struct daemon_keep, shells), POOL_SHELLS_MAX },
};

static struct daemon_template *find_template(struct daemon_config *config, const char *name)
{
	for (size_t i = 0; i < config->n_templates; i++) {
		if (strcmp(config->templates[i].name, name) == 0) {
			return &config->templates[i];
		}
	}
	return NULL;
}

static const char *add_template(struct daemon_config *config, const char *name,
				struct daemon_template **ret)
{
	struct daemon_template *templates;

	if (!snapshot_name_is_valid(name)) {
		return "not the name of a template";
	}
	*ret = find_template(config, name);
	if (*ret) {
		return NULL;
	}
	if (config->n_templates == DAEMON_TEMPLATES_MAX) {
		return "too many templates";
	}
	templates = reallocarray(config->templates, config->n_templates + 1, sizeof(*templates));
	if (!templates) {
		return "out of memory";
	}
	config->templates = templates;
	templates[config->n_templates] =
		(struct daemon_template){ .name = strdup(name), .keep = KEEP_UNSAID };
	limits_unsaid(&templates[config->n_templates].limits);
	if (!templates[config->n_templates].name) {
		return "out of memory";
	}
	*ret = &templates[config->n_templates++];
	return NULL;
}

static int handle_template(struct parse *parse, const char *name, const char *key,
			   const char *value)
{
	struct daemon_template *template;
	const char *wrong = add_template(parse->config, name, &template);
	unsigned *field = NULL;
	uint64_t number, max = 0;
	int r;

	if (wrong) {
		return fail(parse, name, wrong);
	}
	r = handle_limit(parse, &template->limits, key, value);
	if (r >= 0) {
		return r;
	}
	for (size_t i = 0; i < ARRAY_SIZE(template_keys); i++) {
		if (strcmp(key, template_keys[i].name) == 0) {
			field = (unsigned *)(void *)((char *)&template->keep +
						     template_keys[i].offset);
			max = template_keys[i].max;
		}
	}
	if (!field) {
		return fail(parse, key, "no such key in a section of a template");
	}
	if (*field != DAEMON_UNSAID) {
		return fail(parse, key, "given twice");
	}
	wrong = parse_number(value, max, &number);
	if (wrong) {
		return fail(parse, key, wrong);
	}
	*field = (unsigned)number;
	return 1;
}

/* What single lines cannot tell: that they contradict each other. */
static int check_keep(struct parse *parse, const struct daemon_keep *keep, const char *section)
{
	const char *wrong = NULL;

	if (keep->target != DAEMON_UNSAID &&
	    (keep->min != DAEMON_UNSAID || keep->max != DAEMON_UNSAID)) {
		wrong = "a target is both minimum and maximum: give either it or them";
	} else if (keep->min != DAEMON_UNSAID && keep->max != DAEMON_UNSAID &&
		   keep->min > keep->max) {
		wrong = "the minimum is more than the maximum";
	}
	return wrong ? base_error_set(parse->error, -EINVAL, "%s: [%s%s]: %s", parse->path,
				      section ? TEMPLATE_PREFIX : "", section ?: "pool", wrong)
		     : 0;
}

static int check_tenants(struct parse *parse)
{
	struct base_error error;
	int r = daemon_tenants_complete(&parse->config->tenants, &error);

	return r < 0 ? base_error_set(parse->error, r, "%s: %s", parse->path, error.text) : 0;
}

static int check_all(struct parse *parse)
{
	const struct daemon_config *config = parse->config;
	int r = check_keep(parse, &config->keep, NULL);

	r = r ?: check_tenants(parse);

	for (size_t i = 0; r == 0 && i < config->n_templates; i++) {
		r = check_keep(parse, &config->templates[i].keep, config->templates[i].name);
	}
	return r;
}

/* --- reading --- */

static bool section_is_known(const char *section)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (strcmp(keys[i].section, section) == 0) {
			return true;
		}
	}
	return false;
}

static int handle_key(void *userdata, const char *section, const char *name, const char *value)
{
	struct parse *parse = userdata;

	if (strncmp(section, TEMPLATE_PREFIX, strlen(TEMPLATE_PREFIX)) == 0) {
		return handle_template(parse, section + strlen(TEMPLATE_PREFIX), name, value);
	}
	if (strncmp(section, TENANT_PREFIX, strlen(TENANT_PREFIX)) == 0) {
		const char *wrong = daemon_tenants_set(
			&parse->config->tenants, section + strlen(TENANT_PREFIX), name, value);

		return wrong ? fail(parse, name, wrong) : 1;
	}
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const char *wrong;

		if (strcmp(keys[i].section, section) != 0 || strcmp(keys[i].name, name) != 0) {
			continue;
		}
		if (parse->seen & UINT64_C(1) << i) {
			return fail(parse, name, "given twice");
		}
		parse->seen |= UINT64_C(1) << i;
		wrong = set_value(parse->config, &keys[i], value);
		return wrong ? fail(parse, name, wrong) : 1;
	}
	if (section[0] == '\0') {
		return fail(parse, name, "stands in no section");
	}
	if (strcmp(section, LIMITS_SECTION) == 0) {
		int r = handle_limit(parse, &parse->config->limits, name, value);

		if (r >= 0) {
			return r;
		}
	}
	return fail(parse, name, "no such key in this section");
}

/* Looks at `[section]` lines itself: libinih says nothing of a section without keys. */
static void check_section(struct parse *parse, const char *line)
{
	char section[sizeof(TEMPLATE_PREFIX) + SNAPSHOT_NAME_MAX + 1];
	const char *begin = line + strspn(line, " \t");
	size_t size = begin[0] == '[' ? strcspn(begin + 1, "]\n") : 0;
	struct daemon_template *template;
	const char *wrong = NULL;

	if (begin[0] != '[' || begin[1 + size] != ']') {
		return; /* not a section, or a line that libinih refuses */
	}
	snprintf(section, sizeof(section), "%.*s", (int)size, begin + 1);
	if (size >= sizeof(section)) {
		wrong = "no such section";
	} else if (strncmp(section, TEMPLATE_PREFIX, strlen(TEMPLATE_PREFIX)) == 0) {
		wrong = add_template(parse->config, section + strlen(TEMPLATE_PREFIX), &template);
	} else if (strncmp(section, TENANT_PREFIX, strlen(TENANT_PREFIX)) == 0) {
		wrong = daemon_tenants_section(&parse->config->tenants,
					       section + strlen(TENANT_PREFIX));
	} else if (!section_is_known(section)) {
		wrong = "no such section";
	}
	if (wrong) {
		fail(parse, section, wrong);
	}
}

/* fgets() that counts, so that the handler knows the line. */
static char *read_line(char *line, int size, void *stream)
{
	struct parse *parse = stream;

	if (parse->result < 0 || !fgets(line, size, parse->file)) {
		return NULL;
	}
	parse->line++;
	if (!strchr(line, '\n') && !feof(parse->file)) {
		fail(parse, "line", "too long");
		return NULL;
	}
	check_section(parse, line);
	return parse->result < 0 ? NULL : line;
}

int daemon_config_load(struct daemon_config *config, const char *path, struct base_error *error)
{
	struct parse parse = { .config = config, .path = path, .error = error };
	int line;

	parse.file = fopen(path, "re");
	if (!parse.file) {
		int r = -errno;

		return r == -ENOENT ? r : base_error_set_errno(error, r, "cannot read %s", path);
	}
	/* ini_parse_stream() hands one pointer to the reader and another to the handler. */
	line = ini_parse_stream(read_line, &parse, handle_key, &parse);
	if (line != 0 && (parse.result == 0 || (unsigned)line < parse.line)) {
		/* The handler did not object, so libinih itself did. */
		parse.result = 0;
		parse.line = (unsigned)line;
		fail(&parse, "line", "neither [section] nor key = value");
	}
	if (parse.result == 0 && ferror(parse.file)) {
		parse.result = base_error_set(error, -EIO, "%s: cannot be read", path);
	}
	fclose(parse.file);
	return parse.result < 0 ? parse.result : check_all(&parse);
}

/* --- the rest --- */

void daemon_config_init(struct daemon_config *config)
{
	*config = (struct daemon_config){
		.keep = KEEP_UNSAID,
		.orphan_timeout_s = DAEMON_ORPHAN_TIMEOUT_S,
		.memory_floor_percent = DAEMON_MEMORY_FLOOR,
		.restore_nice = DAEMON_RESTORE_NICE,
		.identity_timeout_ms = DAEMON_IDENTITY_TIMEOUT_MS,
		.acquire_timeout_ms = DAEMON_ACQUIRE_TIMEOUT_MS,
		.jail_level = POOL_JAIL_AUTO,
		.jail_uids = { POOL_JAIL_UID_FIRST, POOL_JAIL_UID_LAST },
		.cgroups = POOL_CGROUPS_AUTO,
	};
	daemon_tenants_init(&config->tenants);
	limits_unsaid(&config->limits);
}

void daemon_config_deinit(struct daemon_config *config)
{
	free(config->socket);
	free(config->group);
	free(config->runtime_dir);
	free(config->store);
	free(config->vmm);
	free(config->spawner);
	free(config->pager);
	free(config->journal);
	for (size_t i = 0; i < config->n_templates; i++) {
		free(config->templates[i].name);
	}
	free(config->templates);
	daemon_tenants_deinit(&config->tenants);
	*config = (struct daemon_config){ 0 };
}

int daemon_config_override(char **field, const char *value)
{
	char *copy = strdup(value);

	if (!copy) {
		return -ENOMEM;
	}
	free(*field);
	*field = copy;
	return 0;
}

/* What is said stays; a default gives way to it. */
static void complete_keep(struct daemon_keep *keep, struct pool_limits defaults, unsigned shells)
{
	bool has_min = keep->min != DAEMON_UNSAID, has_max = keep->max != DAEMON_UNSAID;

	keep->shells = keep->shells == DAEMON_UNSAID ? shells : keep->shells;
	if (keep->target != DAEMON_UNSAID) {
		keep->min = keep->max = keep->target;
		return;
	}
	if (!has_min) {
		keep->min = has_max ? MIN(defaults.min, keep->max) : defaults.min;
	}
	if (!has_max) {
		keep->max = MAX(defaults.max, keep->min);
	}
}

int daemon_config_complete(struct daemon_config *config)
{
	struct pool_limits limits = { DAEMON_DEFAULT_MIN, DAEMON_DEFAULT_MAX };
	int r = 0;

	complete_keep(&config->keep, limits, DAEMON_DEFAULT_SHELLS);
	limits = (struct pool_limits){ config->keep.min, config->keep.max };
	complete_limits(&config->limits, NULL);

	for (size_t i = 0; i < config->n_templates; i++) {
		complete_keep(&config->templates[i].keep, limits, config->keep.shells);
		complete_limits(&config->templates[i].limits, &config->limits);
	}
	if (!config->runtime_dir) {
		r = daemon_config_override(&config->runtime_dir, DAEMON_RUNTIME_DIR);
	}
	if (r == 0 && !config->store) {
		r = daemon_config_override(&config->store, DAEMON_STORE);
	}
	if (r == 0 && !config->socket &&
	    asprintf(&config->socket, "%s/%s", config->runtime_dir, DAEMON_SOCKET_NAME) < 0) {
		config->socket = NULL;
		r = -ENOMEM;
	}
	return r;
}
