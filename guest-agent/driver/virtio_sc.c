// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * virtio_sc.c - guest driver of the virtio-sc device
 *
 * A service domain's guest reaches its channels (memory shared with processes of the host) through
 * a virtio device; see docs/virtio-sc.md. This driver hands the device to one user-space program,
 * the agent, as /dev/sc (include/vhost-sc/virtio_sc.h). It interprets no message and no byte of a
 * channel.
 *
 * Messages
 *	eventq is kept full of receive buffers of SC_MSG_MAX bytes. read() copies the oldest used
 *	one to the caller and gives it back to the device. A message that does not fit the caller's
 *	buffer stays. write() copies one message and queues it on controlq; the copy is freed when
 *	the device has used it.
 *
 * Doorbells
 *	A doorbell queue carries notifications but never a buffer. Towards the device this is
 *	virtqueue_notify(). From the device it is the queue's interrupt; the virtio core, however,
 *	drops an interrupt of a queue without used buffers (vring_interrupt() -> more_used()). So
 *	the driver stores an index in the used ring that differs from the last one it has seen,
 *	once, before the device is started, and never takes a buffer: the core then passes every
 *	interrupt on. The device neither reads nor writes the rings of these queues.
 *
 *	If there are too few interrupt vectors for all queues, the virtio core makes them share
 *	one. A bell then signals the eventfds of all slots: users must look before they act, as
 *	with any eventfd.
 *
 * Window
 *	Shared memory region 0 gets struct pages (devm_memremap_pages(), as device-DAX does) and is
 *	mapped write-back, by 2 MiB pages where alignment allows. With pages, O_DIRECT and DMA work
 *	on it.
 *
 * Removal
 *	The device may go (unbind, hot unplug) while the agent has /dev/sc open and mapped. Then
 *	mappings are revoked (SIGBUS), I/O to the window is waited for, doorbells are unbound,
 *	read() and write() return -ENODEV, and poll() reports EPOLLHUP. struct sc_device itself
 *	lives until the last reference is put.
 *
 * Locks
 *	queue_lock	controlq, eventq, gone, inbox. Taken from process context only.
 *	bell->lock	one per doorbell: its queue and eventfd. Taken in the interrupt handler.
 *	map_lock	held for reading while a page is mapped, for writing to end that. Taken
 *			inside mmap_lock; so no user memory may be touched under it.
 */

#include <linux/delay.h>
#include <linux/eventfd.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/memremap.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/poll.h>
#include <linux/rwsem.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/wait.h>
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#include <linux/pfn_t.h>
#endif

#include <vhost-sc/virtio_sc.h>

/**
 * struct sc_bell - doorbell of one channel slot
 * @lock:	protects the other fields
 * @vq:		the doorbell queue; NULL once the device is gone
 * @eventfd:	what the host's bell signals; NULL: nothing
 */
struct sc_bell {
	spinlock_t lock;
	struct virtqueue *vq;
	struct eventfd_ctx *eventfd;
};

/**
 * struct sc_message - a receive buffer of eventq
 * @data:	SC_MSG_MAX bytes, where the device writes
 * @len:	bytes of a received message
 */
struct sc_message {
	void *data;
	u32 len;
};

/**
 * struct sc_device - one virtio-sc device
 * @misc:	/dev/sc
 * @ref:	one reference of probe(), one of the opened file
 * @vdev:	the virtio device; not to be used once @gone
 * @info:	what SC_IOC_INFO tells; constant
 * @base:	physical address of the window; constant
 * @open:	bit 0: /dev/sc is open
 * @queue_lock:	protects @controlq, @eventq, @inbox, @gone
 * @controlq:	messages to the device
 * @eventq:	messages from the device
 * @inbox:	received message that nobody has read yet, or NULL
 * @gone:	the device is gone. Set under @queue_lock and @map_lock: either suffices to read it
 * @wait:	woken by both message queues and by removal
 * @map_lock:	see above
 * @mapping:	address space of the opened file; NULL: closed. Protected by @map_lock
 * @messages:	all receive buffers of eventq
 * @nmessages:	how many
 * @bells:	doorbells; that of slot s is at s - 1
 */
struct sc_device {
	struct miscdevice misc;
	struct kref ref;
	struct virtio_device *vdev;
	struct sc_dev_info info;
	phys_addr_t base;
	unsigned long open;
	spinlock_t queue_lock;
	struct virtqueue *controlq;
	struct virtqueue *eventq;
	struct sc_message *inbox;
	bool gone;
	wait_queue_head_t wait;
	struct rw_semaphore map_lock;
	struct address_space *mapping;
	struct sc_message *messages;
	unsigned int nmessages;
	struct sc_bell bells[];
};

/*
 * What changed in the kernel since 6.1, the oldest version this driver is built for.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
struct virtqueue_info {
	const char *name;
	vq_callback_t *callback;
};

static int sc_virtio_find_vqs(struct virtio_device *vdev, unsigned int n, struct virtqueue *vqs[],
			      struct virtqueue_info info[])
{
	vq_callback_t **callbacks = kcalloc(n, sizeof(*callbacks), GFP_KERNEL);
	const char **names = kcalloc(n, sizeof(*names), GFP_KERNEL);
	int ret = -ENOMEM;
	unsigned int i;

	if (!callbacks || !names)
		goto out;
	for (i = 0; i < n; i++) {
		callbacks[i] = info[i].callback;
		names[i] = info[i].name;
	}
	ret = virtio_find_vqs(vdev, n, vqs, callbacks, names, NULL);
out:
	kfree(names);
	kfree(callbacks);
	return ret;
}
#else
static int sc_virtio_find_vqs(struct virtio_device *vdev, unsigned int n, struct virtqueue *vqs[],
			      struct virtqueue_info info[])
{
	return virtio_find_vqs(vdev, n, vqs, info, NULL);
}
#endif

static void sc_eventfd_signal(struct eventfd_ctx *eventfd)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
	eventfd_signal(eventfd, 1);
#else
	eventfd_signal(eventfd);
#endif
}

/*
 * Until 6.14 pages of a device are mapped as "devmap" entries, without a reference to the page, and
 * by huge pages whatever the order of the page is. Since 6.15 they are mapped like any page; a huge
 * mapping would need pages of that order, and is left out.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define SC_HUGE_FAULT
#endif

static vm_fault_t sc_insert_page(struct vm_fault *vmf, unsigned long pfn)
{
#ifdef SC_HUGE_FAULT
	return vmf_insert_mixed(vmf->vma, vmf->address, __pfn_to_pfn_t(pfn, PFN_DEV | PFN_MAP));
#else
	return vmf_insert_page_mkwrite(vmf, pfn_to_page(pfn), vmf->flags & FAULT_FLAG_WRITE);
#endif
}

static void sc_free(struct kref *ref)
{
	struct sc_device *sc = container_of(ref, struct sc_device, ref);
	unsigned int i;

	for (i = 0; i < sc->nmessages; i++)
		kfree(sc->messages[i].data);
	kfree(sc->messages);
	kvfree(sc);
}

/* ---- messages ---- */

static void sc_message_interrupt(struct virtqueue *vq)
{
	struct sc_device *sc = vq->vdev->priv;

	wake_up_interruptible(&sc->wait);
}

/* Gives a receive buffer to the device. Called with queue_lock held, or from probe(). */
static void sc_post(struct sc_device *sc, struct sc_message *msg)
{
	struct scatterlist sg;

	sg_init_one(&sg, msg->data, SC_MSG_MAX);
	/* There are as many buffers as entries, so this fails on a broken queue only. */
	if (virtqueue_add_inbuf(sc->eventq, &sg, 1, msg, GFP_ATOMIC))
		dev_warn_once(&sc->vdev->dev, "eventq does not take its buffers back\n");
}

/* The oldest received message, or NULL. It stays in the inbox. Called with queue_lock held. */
static struct sc_message *sc_peek(struct sc_device *sc)
{
	unsigned int len;

	if (!sc->inbox && !sc->gone) {
		sc->inbox = virtqueue_get_buf(sc->eventq, &len);
		/* The length is the device's word. */
		if (sc->inbox)
			sc->inbox->len = min_t(unsigned int, len, SC_MSG_MAX);
	}
	return sc->inbox;
}

/* Takes the oldest received message out of the inbox if it fits into `room` bytes. */
static struct sc_message *sc_receive(struct sc_device *sc, size_t room)
{
	struct sc_message *msg;

	spin_lock(&sc->queue_lock);
	msg = sc_peek(sc);
	if (sc->gone)
		msg = ERR_PTR(-ENODEV);
	else if (!msg)
		msg = ERR_PTR(-EAGAIN);
	else if (msg->len > room)
		msg = ERR_PTR(-EMSGSIZE);
	else
		sc->inbox = NULL;
	spin_unlock(&sc->queue_lock);
	return msg;
}

/*
 * Ends what sc_receive() began: the message was read (its buffer goes back to the device), or not
 * (it is the oldest again, unless another reader was faster).
 */
static void sc_received(struct sc_device *sc, struct sc_message *msg, bool read)
{
	spin_lock(&sc->queue_lock);
	if (!read && !sc->inbox) {
		sc->inbox = msg;
	} else if (!sc->gone) {
		sc_post(sc, msg);
		virtqueue_kick(sc->eventq);
	}
	spin_unlock(&sc->queue_lock);
}

static bool sc_readable(struct sc_device *sc)
{
	bool yes;

	spin_lock(&sc->queue_lock);
	yes = sc->gone || sc_peek(sc);
	spin_unlock(&sc->queue_lock);
	return yes;
}

static ssize_t sc_read(struct file *file, char __user *buf, size_t count, loff_t *pos)
{
	struct sc_device *sc = file->private_data;
	struct sc_message *msg;
	bool copied;
	u32 len;
	int ret;

	while (IS_ERR(msg = sc_receive(sc, count))) {
		if (PTR_ERR(msg) != -EAGAIN || file->f_flags & O_NONBLOCK)
			return PTR_ERR(msg);
		ret = wait_event_interruptible(sc->wait, sc_readable(sc));
		if (ret)
			return ret;
	}
	len = msg->len;
	copied = !copy_to_user(buf, msg->data, len);
	sc_received(sc, msg, copied);
	/* Not "copied ? len : -EFAULT", whose type is unsigned. */
	if (!copied)
		return -EFAULT;
	return len;
}

/* Frees what the device has read. True if controlq has room. Called with queue_lock held. */
static bool sc_reclaim(struct sc_device *sc)
{
	unsigned int len;
	void *data;

	while ((data = virtqueue_get_buf(sc->controlq, &len)))
		kfree(data);
	return sc->controlq->num_free;
}

/* Queues a message; it then belongs to the queue. */
static int sc_send(struct sc_device *sc, void *data, size_t len)
{
	struct scatterlist sg;
	int ret = -ENODEV;

	sg_init_one(&sg, data, len);
	spin_lock(&sc->queue_lock);
	if (!sc->gone && !sc_reclaim(sc)) {
		ret = -EAGAIN;
	} else if (!sc->gone) {
		ret = virtqueue_add_outbuf(sc->controlq, &sg, 1, data, GFP_ATOMIC);
		if (!ret)
			virtqueue_kick(sc->controlq);
	}
	spin_unlock(&sc->queue_lock);
	return ret;
}

static bool sc_writable(struct sc_device *sc)
{
	bool yes;

	spin_lock(&sc->queue_lock);
	yes = sc->gone || sc_reclaim(sc);
	spin_unlock(&sc->queue_lock);
	return yes;
}

static ssize_t sc_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)
{
	struct sc_device *sc = file->private_data;
	void *data;
	int ret;

	if (!count || count > SC_MSG_MAX)
		return -EMSGSIZE;
	data = memdup_user(buf, count);
	if (IS_ERR(data))
		return PTR_ERR(data);
	while ((ret = sc_send(sc, data, count)) == -EAGAIN) {
		if (file->f_flags & O_NONBLOCK)
			break;
		ret = wait_event_interruptible(sc->wait, sc_writable(sc));
		if (ret)
			break;
	}
	if (!ret)
		return count;
	kfree(data);
	return ret;
}

static __poll_t sc_poll(struct file *file, poll_table *wait)
{
	struct sc_device *sc = file->private_data;
	__poll_t events = 0;

	poll_wait(file, &sc->wait, wait);
	spin_lock(&sc->queue_lock);
	if (sc->gone) {
		events = EPOLLHUP;
	} else {
		if (sc_peek(sc))
			events |= EPOLLIN | EPOLLRDNORM;
		if (sc_reclaim(sc))
			events |= EPOLLOUT | EPOLLWRNORM;
	}
	spin_unlock(&sc->queue_lock);
	return events;
}

/* ---- doorbells ---- */

/* The host rang. Interrupt context. */
static void sc_bell_interrupt(struct virtqueue *vq)
{
	struct sc_device *sc = vq->vdev->priv;
	struct sc_bell *bell = &sc->bells[vq->index - VIRTIO_SC_VQ_DOORBELL_BASE];
	unsigned long flags;

	spin_lock_irqsave(&bell->lock, flags);
	if (bell->eventfd)
		sc_eventfd_signal(bell->eventfd);
	spin_unlock_irqrestore(&bell->lock, flags);
}

/* The bell of a slot that user space named, or NULL. */
static struct sc_bell *sc_bell_of(struct sc_device *sc, unsigned long slot)
{
	if (slot < 1 || slot > sc->info.num_channels)
		return NULL;
	return &sc->bells[array_index_nospec(slot - 1, sc->info.num_channels)];
}

/* Binds a bell to an eventfd (whose reference it takes over) or, with NULL, unbinds it. */
static void sc_bell_bind(struct sc_bell *bell, struct eventfd_ctx *eventfd)
{
	unsigned long flags;

	spin_lock_irqsave(&bell->lock, flags);
	swap(bell->eventfd, eventfd);
	spin_unlock_irqrestore(&bell->lock, flags);
	if (eventfd)
		eventfd_ctx_put(eventfd);
}

static void sc_unbind_all(struct sc_device *sc)
{
	unsigned int i;

	for (i = 0; i < sc->info.num_channels; i++)
		sc_bell_bind(&sc->bells[i], NULL);
}

static long sc_ioctl_doorbell(struct sc_device *sc, const struct sc_dev_doorbell __user *user)
{
	struct eventfd_ctx *eventfd = NULL;
	struct sc_dev_doorbell arg;
	struct sc_bell *bell;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	bell = sc_bell_of(sc, arg.slot);
	if (!bell)
		return -EINVAL;
	if (arg.fd != -1) {
		eventfd = eventfd_ctx_fdget(arg.fd);
		if (IS_ERR(eventfd))
			return -EBADF;
	}
	sc_bell_bind(bell, eventfd);
	return 0;
}

static long sc_ioctl_kick(struct sc_device *sc, unsigned long slot)
{
	struct sc_bell *bell = sc_bell_of(sc, slot);
	unsigned long flags;
	int ret = -ENODEV;

	if (!bell)
		return -EINVAL;
	spin_lock_irqsave(&bell->lock, flags);
	if (bell->vq)
		ret = virtqueue_notify(bell->vq) ? 0 : -EIO;
	spin_unlock_irqrestore(&bell->lock, flags);
	return ret;
}

static long sc_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct sc_device *sc = file->private_data;
	void __user *user = (void __user *)arg;

	switch (cmd) {
	case SC_IOC_INFO:
		return copy_to_user(user, &sc->info, sizeof(sc->info)) ? -EFAULT : 0;
	case SC_IOC_DOORBELL:
		return sc_ioctl_doorbell(sc, user);
	case SC_IOC_KICK:
		return sc_ioctl_kick(sc, arg);
	default:
		return -ENOTTY;
	}
}

/* ---- window ---- */

/* The frame of the window that `size` bytes around a fault need, or -1 if it lies outside. */
static unsigned long sc_fault_pfn(struct sc_device *sc, struct vm_fault *vmf, unsigned long size)
{
	u64 offset = (u64)vmf->pgoff << PAGE_SHIFT & ~(u64)(size - 1);

	if (offset >= sc->info.window_size || size > sc->info.window_size - offset)
		return -1UL;
	return PHYS_PFN(sc->base + offset);
}

static vm_fault_t sc_fault(struct vm_fault *vmf)
{
	struct sc_device *sc = vmf->vma->vm_file->private_data;
	unsigned long pfn = sc_fault_pfn(sc, vmf, PAGE_SIZE);
	vm_fault_t ret = VM_FAULT_SIGBUS;

	down_read(&sc->map_lock);
	if (!sc->gone && pfn != -1UL)
		ret = sc_insert_page(vmf, pfn);
	up_read(&sc->map_lock);
	return ret;
}

#ifdef SC_HUGE_FAULT
static vm_fault_t sc_huge_fault_pmd(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct sc_device *sc = vma->vm_file->private_data;
	unsigned long start = vmf->address & PMD_MASK;
	unsigned long pfn = sc_fault_pfn(sc, vmf, PMD_SIZE);
	vm_fault_t ret = VM_FAULT_SIGBUS;

	/* The huge page must lie within the mapping and be aligned on both sides. */
	if (start < vma->vm_start || start + PMD_SIZE > vma->vm_end || pfn == -1UL ||
	    !IS_ALIGNED(pfn, PTRS_PER_PTE) ||
	    !IS_ALIGNED(vma->vm_pgoff - (vma->vm_start >> PAGE_SHIFT), PTRS_PER_PTE))
		return VM_FAULT_FALLBACK;
	down_read(&sc->map_lock);
	if (!sc->gone)
		ret = vmf_insert_pfn_pmd(vmf, __pfn_to_pfn_t(pfn, PFN_DEV | PFN_MAP),
					 vmf->flags & FAULT_FLAG_WRITE);
	up_read(&sc->map_lock);
	return ret;
}

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
static vm_fault_t sc_huge_fault(struct vm_fault *vmf, enum page_entry_size size)
{
	return size == PE_SIZE_PMD ? sc_huge_fault_pmd(vmf) : VM_FAULT_FALLBACK;
}
#else
static vm_fault_t sc_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	return order == PMD_ORDER ? sc_huge_fault_pmd(vmf) : VM_FAULT_FALLBACK;
}
#endif
#endif /* SC_HUGE_FAULT */

static const struct vm_operations_struct sc_vm_ops = {
	.fault = sc_fault,
#ifdef SC_HUGE_FAULT
	.huge_fault = sc_huge_fault,
#endif
};

static int sc_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct sc_device *sc = file->private_data;
	unsigned long pages = sc->info.window_size >> PAGE_SHIFT;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (vma->vm_pgoff > pages || vma_pages(vma) > pages - vma->vm_pgoff)
		return -EINVAL;
	/* What applications write must not end in a core dump of the agent. */
	vm_flags_set(vma, VM_MIXEDMAP | VM_HUGEPAGE | VM_DONTDUMP);
	vma->vm_ops = &sc_vm_ops;
	return 0;
}

/* ---- life ---- */

static int sc_open(struct inode *inode, struct file *file)
{
	/* misc_open() holds off misc_deregister(), so the device is there. */
	struct sc_device *sc = container_of(file->private_data, struct sc_device, misc);

	if (test_and_set_bit(0, &sc->open))
		return -EBUSY;
	kref_get(&sc->ref);
	file->private_data = sc;
#ifdef SC_HUGE_FAULT
	/* As device-DAX does: huge faults are for inodes with this flag only. */
	inode_set_flags(inode, S_DAX, S_DAX);
#endif
	down_write(&sc->map_lock);
	sc->mapping = inode->i_mapping;
	up_write(&sc->map_lock);
	return stream_open(inode, file);
}

/* Also the end of all mappings, since each holds the file. */
static int sc_release(struct inode *inode, struct file *file)
{
	struct sc_device *sc = file->private_data;

	sc_unbind_all(sc);
	down_write(&sc->map_lock);
	sc->mapping = NULL;
	up_write(&sc->map_lock);
	clear_bit(0, &sc->open);
	kref_put(&sc->ref, sc_free);
	return 0;
}

static const struct file_operations sc_fops = {
	.owner = THIS_MODULE,
	.open = sc_open,
	.release = sc_release,
	.read = sc_read,
	.write = sc_write,
	.poll = sc_poll,
	.mmap = sc_mmap,
	.get_unmapped_area = thp_get_unmapped_area,
	.unlocked_ioctl = sc_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

/* Finds and checks the window, and gives it pages. */
static int sc_map_window(struct virtio_device *vdev, struct sc_dev_info *info, phys_addr_t *base)
{
	struct virtio_shm_region window;
	struct dev_pagemap *pgmap;
	void *kaddr;

	virtio_cread_le(vdev, struct virtio_sc_config, num_channels, &info->num_channels);
	virtio_cread_le(vdev, struct virtio_sc_config, slot_size, &info->slot_size);
	if (!virtio_get_shm_region(vdev, &window, VIRTIO_SC_SHMEM_WINDOW)) {
		dev_err(&vdev->dev, "device has no window (shared memory region 0)\n");
		return -ENODEV;
	}
	if (info->num_channels < 1 || info->num_channels > VIRTIO_SC_MAX_CHANNELS ||
	    info->slot_size < SZ_64K || !is_power_of_2(info->slot_size) ||
	    window.len / info->slot_size < info->num_channels + 1) {
		dev_err(&vdev->dev,
			"bad configuration: %u channels, slots of %llu, window of %llu\n",
			info->num_channels, info->slot_size, window.len);
		return -EINVAL;
	}
	if (window.addr < SZ_4G)
		dev_warn(&vdev->dev, "window is below 4 GiB, where firmware makes it uncachable\n");
	if (!devm_request_mem_region(&vdev->dev, window.addr, window.len, dev_name(&vdev->dev))) {
		dev_err(&vdev->dev, "window %#llx+%#llx is in use\n", window.addr, window.len);
		return -EBUSY;
	}
	pgmap = devm_kzalloc(&vdev->dev, sizeof(*pgmap), GFP_KERNEL);
	if (!pgmap)
		return -ENOMEM;
	pgmap->type = MEMORY_DEVICE_GENERIC;
	pgmap->range.start = window.addr;
	pgmap->range.end = window.addr + window.len - 1;
	pgmap->nr_range = 1;
	kaddr = devm_memremap_pages(&vdev->dev, pgmap);
	if (IS_ERR(kaddr)) {
		dev_err(&vdev->dev, "no pages for the window %#llx+%#llx: %ld\n", window.addr,
			window.len, PTR_ERR(kaddr));
		return PTR_ERR(kaddr);
	}
	info->window_size = window.len;
	*base = window.addr;
	return 0;
}

/* Makes the virtio core pass interrupts of a queue on although no buffer is ever used. */
static void sc_arm_bell(struct virtqueue *vq)
{
	virtqueue_get_vring(vq)->used->idx = cpu_to_virtio16(vq->vdev, 1);
}

static int sc_find_vqs(struct sc_device *sc)
{
	unsigned int i, n = VIRTIO_SC_VQ_DOORBELL_BASE + sc->info.num_channels;
	struct virtqueue_info *info = kcalloc(n, sizeof(*info), GFP_KERNEL);
	struct virtqueue **vqs = kcalloc(n, sizeof(*vqs), GFP_KERNEL);
	int ret = -ENOMEM;

	if (!info || !vqs)
		goto out;
	for (i = 0; i < n; i++) {
		info[i].name = "doorbell";
		info[i].callback = sc_bell_interrupt;
	}
	info[VIRTIO_SC_VQ_CONTROL].name = "control";
	info[VIRTIO_SC_VQ_CONTROL].callback = sc_message_interrupt;
	info[VIRTIO_SC_VQ_EVENT].name = "event";
	info[VIRTIO_SC_VQ_EVENT].callback = sc_message_interrupt;
	ret = sc_virtio_find_vqs(sc->vdev, n, vqs, info);
	if (ret)
		goto out;
	sc->controlq = vqs[VIRTIO_SC_VQ_CONTROL];
	sc->eventq = vqs[VIRTIO_SC_VQ_EVENT];
	for (i = 0; i < sc->info.num_channels; i++) {
		sc->bells[i].vq = vqs[VIRTIO_SC_VQ_DOORBELL_BASE + i];
		sc_arm_bell(sc->bells[i].vq);
	}
out:
	kfree(vqs);
	kfree(info);
	return ret;
}

/* Fills eventq with receive buffers. */
static int sc_fill_eventq(struct sc_device *sc)
{
	unsigned int n = sc->eventq->num_free;

	sc->messages = kcalloc(n, sizeof(*sc->messages), GFP_KERNEL);
	if (!sc->messages)
		return -ENOMEM;
	for (; sc->nmessages < n; sc->nmessages++) {
		struct sc_message *msg = &sc->messages[sc->nmessages];

		/* Zeroed: a device that tells too great a length shows user space nothing else. */
		msg->data = kzalloc(SC_MSG_MAX, GFP_KERNEL);
		if (!msg->data)
			return -ENOMEM;
		sc_post(sc, msg);
	}
	return 0;
}

/* Stops the device and frees its queues. Nobody may use them any more. */
static void sc_del_vqs(struct sc_device *sc)
{
	void *data;

	virtio_reset_device(sc->vdev);
	sc_reclaim(sc);
	while ((data = virtqueue_detach_unused_buf(sc->controlq)))
		kfree(data);
	sc->vdev->config->del_vqs(sc->vdev);
}

/* Everybody stops using the device: see "Removal" above. */
static void sc_set_gone(struct sc_device *sc)
{
	unsigned long flags;
	unsigned int i;

	down_write(&sc->map_lock);
	spin_lock(&sc->queue_lock);
	sc->gone = true;
	spin_unlock(&sc->queue_lock);
	if (sc->mapping)
		unmap_mapping_range(sc->mapping, 0, 0, 1);
	up_write(&sc->map_lock);
	for (i = 0; i < sc->info.num_channels; i++) {
		struct sc_bell *bell = &sc->bells[i];

		spin_lock_irqsave(&bell->lock, flags);
		bell->vq = NULL;
		spin_unlock_irqrestore(&bell->lock, flags);
		sc_bell_bind(bell, NULL);
	}
	wake_up_interruptible_all(&sc->wait);
}

/*
 * Waits until no I/O holds a page of the window. To be called when it is revoked, so that nobody
 * gets a new hold, and before the device is reset, which makes the window a hole: a disk that meets
 * a hole in the middle of a transfer stops for good. Nor does devm_memremap_pages() wait for holds
 * of pages of this type when it frees them.
 *
 * The block layer sees to it that I/O ends.
 */
static void sc_wait_for_io(struct sc_device *sc)
{
	unsigned long pfn = PHYS_PFN(sc->base);
	unsigned long end = pfn + (sc->info.window_size >> PAGE_SHIFT);
	unsigned int waited = 0;

	for (; pfn < end; pfn++) {
		/* One reference is the page's own. */
		while (page_ref_count(pfn_to_page(pfn)) > 1) {
			msleep(10);
			if (++waited % 1000 == 0)
				dev_warn(&sc->vdev->dev, "waiting for I/O to the window, %u s\n",
					 waited / 100);
		}
		if (pfn % 4096 == 0)
			cond_resched();
	}
}

static struct sc_device *sc_alloc(struct virtio_device *vdev, const struct sc_dev_info *info)
{
	struct sc_device *sc = kvzalloc(struct_size(sc, bells, info->num_channels), GFP_KERNEL);
	unsigned int i;

	if (!sc)
		return NULL;
	sc->vdev = vdev;
	sc->info = *info;
	kref_init(&sc->ref);
	spin_lock_init(&sc->queue_lock);
	init_rwsem(&sc->map_lock);
	init_waitqueue_head(&sc->wait);
	for (i = 0; i < info->num_channels; i++)
		spin_lock_init(&sc->bells[i].lock);
	sc->misc.minor = MISC_DYNAMIC_MINOR;
	sc->misc.name = "sc";
	sc->misc.fops = &sc_fops;
	sc->misc.parent = &vdev->dev;
	return sc;
}

static int sc_probe(struct virtio_device *vdev)
{
	struct sc_dev_info info = {};
	struct sc_device *sc;
	phys_addr_t base;
	int ret;

	ret = sc_map_window(vdev, &info, &base);
	if (ret)
		return ret;
	sc = sc_alloc(vdev, &info);
	if (!sc)
		return -ENOMEM;
	sc->base = base;
	vdev->priv = sc;
	ret = sc_find_vqs(sc);
	if (ret) {
		dev_err(&vdev->dev, "cannot set up %u queues: %d\n",
			VIRTIO_SC_VQ_DOORBELL_BASE + info.num_channels, ret);
		goto put;
	}
	ret = sc_fill_eventq(sc);
	if (ret)
		goto del_vqs;
	virtio_device_ready(vdev);
	virtqueue_kick(sc->eventq);
	ret = misc_register(&sc->misc);
	if (ret) {
		dev_err(&vdev->dev, "cannot make /dev/sc: %d\n", ret);
		goto del_vqs;
	}
	dev_info(&vdev->dev, "%u channels, slots of %llu KiB, window of %llu MiB at %pa\n",
		 info.num_channels, info.slot_size >> 10, info.window_size >> 20, &base);
	return 0;

del_vqs:
	sc_del_vqs(sc);
put:
	kref_put(&sc->ref, sc_free);
	return ret;
}

static void sc_remove(struct virtio_device *vdev)
{
	struct sc_device *sc = vdev->priv;

	misc_deregister(&sc->misc);
	sc_set_gone(sc);
	sc_wait_for_io(sc);
	sc_del_vqs(sc);
	kref_put(&sc->ref, sc_free);
}

static int sc_validate(struct virtio_device *vdev)
{
	if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1)) {
		dev_err(&vdev->dev, "not a virtio 1 device\n");
		return -ENODEV;
	}
	/* sc_arm_bell() knows split rings. */
	__virtio_clear_bit(vdev, VIRTIO_F_RING_PACKED);
	return 0;
}

static const struct virtio_device_id sc_ids[] = {
	{ VIRTIO_ID_SC, VIRTIO_DEV_ANY_ID },
	{},
};
MODULE_DEVICE_TABLE(virtio, sc_ids);

static struct virtio_driver sc_driver = {
	.driver.name = KBUILD_MODNAME,
	.driver.owner = THIS_MODULE,
	.id_table = sc_ids,
	.validate = sc_validate,
	.probe = sc_probe,
	.remove = sc_remove,
};
module_virtio_driver(sc_driver);

MODULE_DESCRIPTION("Guest driver of virtio-sc, the device of a service domain");
MODULE_AUTHOR("The vhost-sc authors");
MODULE_LICENSE("GPL");
