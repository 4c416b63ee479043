/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What tenants that share this host could learn of each other or take from it beside the walls that
 * warmbox builds: docs/security.md, "Side channels". Reads what the kernel says of itself below a
 * root directory, so that a test can show it another machine; changes nothing. What a kernel does
 * not know it does not say, and that counts as not there.
 */

#include "cli/doctor.h"

#include "base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES    4096
#define TEXT_BYTES    512
#define CPUINFO_BYTES 8192

#define VULNERABILITIES "/sys/devices/system/cpu/vulnerabilities"

struct host {
	const char *root;
	cli_finding_fn report;
	void *userdata;
};

/* The first bytes of a file, without the newline at the end. False when it cannot be read. */
static bool read_text(const struct host *host, const char *name, char *text, size_t size)
{
	char path[PATH_BYTES];
	_cleanup_fd_ int fd = -1;
	ssize_t n;

	text[0] = '\0';
	snprintf(path, sizeof(path), "%s%s", host->root, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return false;
	}
	n = read(fd, text, size - 1);
	if (n < 0) {
		return false;
	}
	text[n] = '\0';
	if (n > 0 && text[n - 1] == '\n') {
		text[n - 1] = '\0';
	}
	return true;
}

/* advice: NULL when it is well. */
static void say(const struct host *host, const char *name, const char *advice, const char *text)
{
	cli_doctor_report(host->report, host->userdata, name,
			  advice ? CLI_VERDICT_WARN : CLI_VERDICT_OK, advice, "%s", text);
}

/* One file and what is wrong with which values. */
struct setting {
	const char *name;
	const char *path;
	const char *bad[3]; /* what it is when it is wrong */
	bool bad_when_absent;
	const char *bad_text, *good_text, *advice;
};

static const struct setting settings[] = {
	{
		"ksm",
		"/sys/kernel/mm/ksm/run",
		{ "1" },
		false,
		"the kernel merges equal pages of processes",
		"equal pages of processes are not merged",
		"A tenant can find out by the time of a write whether another has the same page: "
		"echo 2 > /sys/kernel/mm/ksm/run.",
	},
	{
		"ptrace_scope",
		"/proc/sys/kernel/yama/ptrace_scope",
		{ "0" },
		true,
		"any process of a user may trace the user's others",
		"processes are traced by their parents or by root only",
		"Without a uid for each VM one that is taken over could trace another: sysctl "
		"kernel.yama.ptrace_scope=1.",
	},
	{
		"userfault_user",
		"/proc/sys/vm/unprivileged_userfaultfd",
		{ "1" },
		false,
		"every user may stop the kernel in the middle of a copy (userfaultfd)",
		"userfaultfd for faults of the kernel is for the privileged",
		"Many exploits of the kernel need it: sysctl vm.unprivileged_userfaultfd=0, and "
		"give the daemon's user access to /dev/userfaultfd.",
	},
	{
		"bpf_user",
		"/proc/sys/kernel/unprivileged_bpf_disabled",
		{ "0" },
		false,
		"every user may load BPF programs",
		"BPF programs are for the privileged",
		"They help to read kernel memory by speculation: sysctl "
		"kernel.unprivileged_bpf_disabled=1.",
	},
	{
		"io_uring_user",
		"/proc/sys/kernel/io_uring_disabled",
		{ "1", "2" },
		false,
		"io_uring is restricted: VMMs, whose users have no rights, cannot make a ring",
		"VMMs may make their io_uring (a filter bounds what they do with it)",
		"Allow it: sysctl kernel.io_uring_disabled=0; or 1, and a kernel.io_uring_group "
		"that VMMs are in.",
	},
	{
		"thp_shmem",
		"/sys/kernel/mm/transparent_hugepage/shmem_enabled",
		{ "[always]", "[force]", "[within_size]" },
		false,
		"shared memory is made of huge pages without being asked",
		"shared memory is made of small pages",
		"Memory images must be filled page by page, or a VM would see zeros: echo never > "
		"/sys/kernel/mm/transparent_hugepage/shmem_enabled.",
	},
};

static void check_setting(const struct host *host, const struct setting *setting)
{
	char text[TEXT_BYTES];
	bool bad = !read_text(host, setting->path, text, sizeof(text)) && setting->bad_when_absent;

	for (size_t i = 0; i < ARRAY_SIZE(setting->bad) && setting->bad[i]; i++) {
		/* Of a choice the kernel lists all, with brackets around the one that is made. */
		bad |= setting->bad[i][0] == '[' ? strstr(text, setting->bad[i]) != NULL
						 : strcmp(text, setting->bad[i]) == 0;
	}
	say(host, setting->name, bad ? setting->advice : NULL,
	    bad ? setting->bad_text : setting->good_text);
}

/* What the files of vulnerabilities/ say, as far as it matters here. */
struct vulnerabilities {
	char open[128];	    /* names of those that nothing is done about */
	bool through_smt;   /* some are mitigated, but not between the threads of a core */
	bool old_microcode; /* some lack what a microcode would bring */
	bool multihit;	    /* a guest's huge executable pages can stop the processor */
	bool known;
};

static void take_vulnerability(struct vulnerabilities *all, const char *name, const char *text)
{
	size_t used = strlen(all->open);
	const char *smt = strstr(text, "SMT vulnerable");
	const char *found = strstr(text, "ulnerable");

	all->known = true;
	all->through_smt |= smt != NULL;
	all->old_microcode |= strstr(text, "no microcode") != NULL;
	if (strcmp(name, "old_microcode") == 0) {
		all->old_microcode |= found != NULL;
		return;
	}
	if (strcmp(name, "itlb_multihit") == 0) {
		all->multihit = strncmp(text, "Not affected", 12) != 0;
	}
	/* "Vulnerable", "VMX: vulnerable", "BHI: Vulnerable"; but not that of SMT alone. */
	if (found && smt && found == smt + strlen("SMT v")) {
		found = strstr(found + 1, "ulnerable");
	}
	if (found || strncmp(text, "Unknown", 7) == 0) {
		snprintf(all->open + used, sizeof(all->open) - used, "%s%s", used ? ", " : "",
			 name);
	}
}

static void read_vulnerabilities(const struct host *host, struct vulnerabilities *all)
{
	char path[PATH_BYTES], text[TEXT_BYTES];
	struct dirent **entries = NULL;
	int n;

	memset(all, 0, sizeof(*all));
	snprintf(path, sizeof(path), "%s%s", host->root, VULNERABILITIES);
	n = scandir(path, &entries, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s", VULNERABILITIES, entries[i]->d_name);
		if (entries[i]->d_name[0] != '.' && read_text(host, path, text, sizeof(text))) {
			take_vulnerability(all, entries[i]->d_name, text);
		}
		free(entries[i]);
	}
	free(entries);
}

static void check_smt(const struct host *host, const struct vulnerabilities *all)
{
	char text[TEXT_BYTES];
	bool active = read_text(host, "/sys/devices/system/cpu/smt/active", text, sizeof(text)) &&
		      strcmp(text, "1") == 0;

	say(host, "smt",
	    active ? "Threads of a core share caches and buffers: boot with nosmt (or echo off > "
		     "/sys/devices/system/cpu/smt/control), or give each tenant hosts of its own."
		   : NULL,
	    !active	       ? "no two tenants run on one core at the same time"
	    : all->through_smt ? "SMT is on, and this processor is known to leak between threads"
			       : "SMT is on: two tenants may run on one core at the same time");
}

static void check_mitigations(const struct host *host, const struct vulnerabilities *all)
{
	char text[TEXT_BYTES];

	if (!all->known) {
		say(host, "mitigations", "Use a kernel that has " VULNERABILITIES ".",
		    "the kernel does not say what its processor is vulnerable to");
		return;
	}
	snprintf(text, sizeof(text), "nothing is done about %s", all->open);
	say(host, "mitigations",
	    all->open[0] ? "Boot without mitigations=off, with a newer kernel and microcode; in a "
			   "virtual machine the host below has to pass them on."
			 : NULL,
	    all->open[0] ? text : "what the processor is vulnerable to is mitigated");
}

static void check_microcode(const struct host *host, const struct vulnerabilities *all)
{
	char info[CPUINFO_BYTES], version[TEXT_BYTES], text[TEXT_BYTES * 2];
	bool is_virtual;

	(void)read_text(host, "/proc/cpuinfo", info, sizeof(info));
	is_virtual = strstr(info, " hypervisor") != NULL;
	if (!read_text(host, "/sys/devices/system/cpu/cpu0/microcode/version", version,
		       sizeof(version))) {
		snprintf(version, sizeof(version), "unknown");
	}
	snprintf(text, sizeof(text), "microcode %s%s", version,
		 is_virtual ? " (a virtual machine: its host's affair)" : "");
	say(host, "microcode",
	    all->old_microcode ? "Mitigations need a newer one: install intel-microcode or "
				 "amd64-microcode, or update the firmware."
			       : NULL,
	    text);
}

static void check_nx_huge_pages(const struct host *host, const struct vulnerabilities *all)
{
	char text[TEXT_BYTES];
	bool is_off =
		read_text(host, "/sys/module/kvm/parameters/nx_huge_pages", text, sizeof(text)) &&
		(text[0] == 'N' || strcmp(text, "never") == 0);

	say(host, "nx_huge_pages",
	    is_off && all->multihit ? "A guest can stop the processor (iTLB multihit): set "
				      "kvm.nx_huge_pages=auto."
				    : NULL,
	    all->multihit ? is_off ? "guests may have huge executable pages, on a processor that "
				     "these can stop"
				   : "guests have no huge executable pages"
			  : "the processor has no iTLB multihit");
}

static void check_swap(const struct host *host)
{
	char text[TEXT_BYTES];
	const char *line;
	bool any;

	(void)read_text(host, "/proc/swaps", text, sizeof(text));
	line = strchr(text, '\n'); /* behind the heading */
	any = line && line[1] != '\0';
	say(host, "swap",
	    any ? "It holds guests' memory after they are gone, and its use shows when others want "
		  "memory: swapoff -a, or only encrypted swap, or none for sandboxes (swap = no)."
		: NULL,
	    any ? "memory of guests may be written to swap" : "there is no swap");
}

static void check_core_pattern(const struct host *host)
{
	char pattern[TEXT_BYTES], text[TEXT_BYTES * 2];
	bool here;

	(void)read_text(host, "/proc/sys/kernel/core_pattern", pattern, sizeof(pattern));
	here = pattern[0] != '\0' && pattern[0] != '|' && pattern[0] != '/';
	snprintf(text, sizeof(text), "core dumps go to %.200s", pattern[0] ? pattern : "nowhere");
	say(host, "core_pattern",
	    here ? "A dump of the manager or the pager would lie in its working directory with "
		   "memory of guests: sysctl kernel.core_pattern=\"|/bin/false\", or a directory "
		   "that only root may read."
		 : NULL,
	    text);
}

static void check_controllers(const struct host *host)
{
	static const char *const wanted[] = { "cpu", "io", "memory", "pids" };
	char controllers[TEXT_BYTES], text[TEXT_BYTES], padded[TEXT_BYTES + 2];
	size_t used = 0;

	if (!read_text(host, "/sys/fs/cgroup/cgroup.controllers", controllers,
		       sizeof(controllers))) {
		say(host, "controllers",
		    "Use cgroup version 2 (boot with "
		    "systemd.unified_cgroup_hierarchy=1): entering a cgroup of version 1 takes "
		    "longer, and it cannot be delegated.",
		    "no controllers of cgroup version 2");
		return;
	}
	snprintf(padded, sizeof(padded), " %s ", controllers);
	text[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		char word[16];

		snprintf(word, sizeof(word), " %s ", wanted[i]);
		if (!strstr(padded, word)) {
			used += (size_t)snprintf(text + used, sizeof(text) - used, " %s",
						 wanted[i]);
		}
	}
	cli_doctor_report(host->report, host->userdata, "controllers",
			  used > 0 ? CLI_VERDICT_WARN : CLI_VERDICT_OK,
			  used > 0 ? "Limits that need them cannot be set: enable them in the "
				     "kernel, and delegate them to the daemon (Delegate=yes)."
				   : NULL,
			  "%s%s",
			  used > 0 ? "controllers that are missing:"
				   : "cgroup controllers: cpu io memory pids",
			  text);
}

void cli_doctor_check_hardening(const char *root, cli_finding_fn report, void *userdata)
{
	const struct host host = { root, report, userdata };
	struct vulnerabilities all;

	read_vulnerabilities(&host, &all);
	check_smt(&host, &all);
	check_mitigations(&host, &all);
	check_microcode(&host, &all);
	check_nx_huge_pages(&host, &all);
	check_swap(&host);
	check_core_pattern(&host);
	check_controllers(&host);
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		check_setting(&host, &settings[i]);
	}
}
