/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Is there a KVM, may we use it, and is it as fast as it should be: makes one small VM and destroys
 * it. Leaves nothing behind.
 */

#include "cli/doctor.h"

#include "base/fd.h"
#include "cli/cli.h"
#include "vmm/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <unistd.h>

/* Above these something on the host is wrong; normal is a tenth of it. */
#define CREATE_SLOW_NS	(10 * NSEC_PER_MSEC)
#define MEMSLOT_SLOW_NS (2 * NSEC_PER_MSEC)
#define DESTROY_SLOW_NS (10 * NSEC_PER_MSEC)

static int check_device(cli_finding_fn report, void *userdata)
{
	_cleanup_fd_ int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int r = fd < 0 ? -errno : 0;

	switch (r) {
	case 0:
		cli_doctor_report(report, userdata, "kvm", CLI_VERDICT_OK, NULL,
				  "/dev/kvm is there and may be used");
		break;
	case -EACCES:
	case -EPERM:
		cli_doctor_report(
			report, userdata, "kvm", CLI_VERDICT_FAIL,
			"Be root, or join the group that owns it: ls -l /dev/kvm; usermod -aG "
			"kvm USER.",
			"no permission to use /dev/kvm");
		break;
	default:
		cli_doctor_report(
			report, userdata, "kvm", CLI_VERDICT_FAIL,
			"Load it (modprobe kvm_intel, or kvm_amd); enable virtualization in "
			"the firmware, or nested virtualization for a virtual machine; give "
			"a container the device (--device /dev/kvm).",
			"cannot open /dev/kvm: %s", strerrordesc_np(-r));
		break;
	}
	return r;
}

static void check_program(cli_finding_fn report, void *userdata)
{
	const char *path = cli_vmm_path();

	if (access(path, X_OK) == 0) {
		cli_doctor_report(report, userdata, "vmm", CLI_VERDICT_OK, NULL, "the VMM is %s",
				  path);
	} else {
		cli_doctor_report(report, userdata, "vmm", CLI_VERDICT_FAIL,
				  "Install warmbox, or name the program in WARMBOX_VMM.",
				  "cannot run the VMM %s: %s", path, strerrordesc_np(errno));
	}
}

static void check_features(const struct vmm_host_report *host, cli_finding_fn report,
			   void *userdata)
{
	bool complete = host->api_version == KVM_API_VERSION && host->has_split_irqchip &&
			host->has_immediate_exit;

	cli_doctor_report(report, userdata, "kvm_api", complete ? CLI_VERDICT_OK : CLI_VERDICT_FAIL,
			  complete ? NULL : "Use a newer kernel (5.15 or later) with the full KVM.",
			  "KVM API %d, kind %s%s%s", host->api_version,
			  vmm_host_kind_name(host->kind),
			  host->has_split_irqchip ? "" : ", no split irqchip",
			  host->has_immediate_exit ? "" : ", no immediate exit");
	if (host->kind == VMM_HOST_PVM) {
		cli_doctor_report(
			report, userdata, "host_kind", CLI_VERDICT_WARN,
			"Where speed inside the guest matters, use a host with VT-x or SVM.",
			"this KVM has no hardware virtualization: the guest's kernel is "
			"interpreted and slow; its programs run at full speed");
	} else {
		cli_doctor_report(report, userdata, "host_kind", CLI_VERDICT_OK, NULL,
				  "hardware virtualization");
	}
}

static void check_speed(const struct vmm_host_report *host, cli_finding_fn report, void *userdata)
{
	char create[CLI_FORMAT_MAX], memslot[CLI_FORMAT_MAX], destroy[CLI_FORMAT_MAX];
	const char *advice = NULL;

	if (host->memslot_ns > MEMSLOT_SLOW_NS) {
		advice =
			"A memory slot after the split irqchip takes a grace period of the kernel: "
			"run it again; if it stays, the host is overloaded or its KVM unusual.";
	} else if (host->create_vm_ns > CREATE_SLOW_NS || host->destroy_ns > DESTROY_SLOW_NS) {
		advice = "Run it again; if it stays and the CPU is not affected by iTLB multihit, "
			 "set "
			 "the module parameter kvm.nx_huge_pages=never; do not run in a cgroup v1.";
	}
	cli_doctor_report(report, userdata, "irqchip_order",
			  advice ? CLI_VERDICT_WARN : CLI_VERDICT_OK, advice,
			  "making a VM takes %s, a memory slot after the split irqchip %s, "
			  "destroying it %s",
			  cli_format_duration(create, host->create_vm_ns),
			  cli_format_duration(memslot, host->memslot_ns),
			  cli_format_duration(destroy, host->destroy_ns));
}

void cli_doctor_check_kvm(cli_finding_fn report, void *userdata)
{
	struct vmm_host_report host = {};
	struct base_error error = {};

	check_program(report, userdata);
	if (check_device(report, userdata) < 0) {
		return;
	}
	if (vmm_host_probe(&host, &error) < 0) {
		cli_doctor_report(report, userdata, "kvm_api", CLI_VERDICT_FAIL,
				  "Is another hypervisor using the CPU? See dmesg.",
				  "a small VM cannot be made: %s", error.text);
		return;
	}
	check_features(&host, report, userdata);
	check_speed(&host, report, userdata);
}
