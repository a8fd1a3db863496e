/** What Compute Engine's API says, as far as it is used here. Numbers of 64 bits are strings. */

export interface Instance {
  id: string;
  name: string;
  zone: string;
  status:
    | 'PROVISIONING'
    | 'STAGING'
    | 'RUNNING'
    | 'STOPPING'
    | 'SUSPENDING'
    | 'SUSPENDED'
    | 'REPAIRING'
    | 'PENDING_STOP'
    | 'TERMINATED';
  statusMessage?: string;
  machineType: string;
  creationTimestamp?: string;
  lastStartTimestamp?: string;
  labels?: Record<string, string>;
  labelFingerprint: string;
  metadata?: { fingerprint: string; items?: { key: string; value: string }[] };
  disks?: {
    source?: string;
    deviceName: string;
    autoDelete: boolean;
    boot?: boolean;
    architecture?: string;
  }[];
}

export interface Disk {
  name: string;
  zone: string;
  sizeGb: string;
  status: 'CREATING' | 'RESTORING' | 'FAILED' | 'READY' | 'DELETING' | 'UNAVAILABLE';
  /** The machines that it is attached to. */
  users?: string[];
  creationTimestamp?: string;
  labels?: Record<string, string>;
  labelFingerprint: string;
}

export interface DiskSnapshot {
  name: string;
  status: 'CREATING' | 'UPLOADING' | 'READY' | 'FAILED' | 'DELETING';
  creationTimestamp?: string;
  labels?: Record<string, string>;
}

export interface Image {
  name: string;
  selfLink: string;
  diskSizeGb: string;
  architecture?: 'X86_64' | 'ARM64' | 'ARCHITECTURE_UNSPECIFIED';
}

export interface MachineType {
  guestCpus: number;
  memoryMb: number;
}
