// The cluster's certificate authority, the certificates of its parts, and a kubeconfig for each of them.
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { apiServiceAddress, apiUrl, clusterDir, nodeAddress, nodeName } from './layout.ts';
import { run } from './machine.ts';

export const pki = (file: string): string => join(clusterDir, 'pki', file);

const days = '3650';

const newKey = (file: string) =>
  run('openssl', ['genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', file]);

function authority(name: string, subject: string): void {
  if (existsSync(pki(`${name}.crt`))) return;
  newKey(pki(`${name}.key`));
  run('openssl', [
    ...['req', '-x509', '-new', '-key', pki(`${name}.key`), '-subj', subject, '-days', days],
    ...['-addext', 'keyUsage=critical,digitalSignature,keyCertSign,cRLSign', '-out', pki(`${name}.crt`)],
  ]);
}

interface Wanted {
  name: string;
  subject: string;
  /** Names and addresses of a server; none for a client. */
  at?: string[];
  signer?: string;
}

function certificate({ name, subject, at = [], signer = 'ca' }: Wanted): void {
  if (existsSync(pki(`${name}.crt`))) return;
  newKey(pki(`${name}.key`));
  const extensions = ['keyUsage=critical,digitalSignature', 'extendedKeyUsage=clientAuth,serverAuth'];
  if (at.length > 0) {
    extensions.push(
      `subjectAltName=${at.map((name) => (/^[\d.]+$/.test(name) ? `IP:${name}` : `DNS:${name}`)).join(',')}`,
    );
  }
  writeFileSync(pki(`${name}.ext`), extensions.join('\n'));
  run('openssl', ['req', '-new', '-key', pki(`${name}.key`), '-subj', subject, '-out', pki(`${name}.csr`)]);
  run('openssl', [
    ...[
      'x509',
      '-req',
      '-in',
      pki(`${name}.csr`),
      '-CA',
      pki(`${signer}.crt`),
      '-CAkey',
      pki(`${signer}.key`),
    ],
    ...['-CAcreateserial', '-days', days, '-extfile', pki(`${name}.ext`), '-out', pki(`${name}.crt`)],
  ]);
  for (const rest of ['csr', 'ext']) rmSync(pki(`${name}.${rest}`));
}

/** The text of a kubeconfig that signs in with the named certificate. */
function kubeconfig(certificateName: string): string {
  const data = (file: string) => readFileSync(pki(file)).toString('base64');
  return `apiVersion: v1
kind: Config
clusters:
- name: cde-test
  cluster:
    server: ${apiUrl}
    certificate-authority-data: ${data('ca.crt')}
users:
- name: ${certificateName}
  user:
    client-certificate-data: ${data(`${certificateName}.crt`)}
    client-key-data: ${data(`${certificateName}.key`)}
contexts:
- name: cde-test
  context:
    cluster: cde-test
    user: ${certificateName}
current-context: cde-test
`;
}

/** The path of the kubeconfig of a component. */
export const componentKubeconfig = (name: string): string => join(clusterDir, 'config', `${name}.kubeconfig`);

/** Creates the missing certificates, which last ten years, and the kubeconfigs of the components. */
export function makeCertificates(): void {
  mkdirSync(join(clusterDir, 'pki'), { recursive: true, mode: 0o700 });
  mkdirSync(join(clusterDir, 'config'), { recursive: true });
  authority('ca', '/CN=cde-test-ca');
  authority('front-proxy-ca', '/CN=cde-test-front-proxy-ca');
  const service = [
    'kubernetes',
    'kubernetes.default',
    'kubernetes.default.svc',
    'kubernetes.default.svc.cluster.local',
  ];
  certificate({
    name: 'apiserver',
    subject: '/CN=kube-apiserver',
    at: [...service, 'localhost', '127.0.0.1', apiServiceAddress, nodeAddress],
  });
  certificate({ name: 'kubelet-server', subject: `/CN=${nodeName}`, at: [nodeName, nodeAddress] });
  certificate({
    name: 'apiserver-kubelet-client',
    subject: '/O=system:masters/CN=kube-apiserver-kubelet-client',
  });
  certificate({ name: 'front-proxy-client', subject: '/CN=front-proxy-client', signer: 'front-proxy-ca' });
  certificate({ name: 'admin', subject: '/O=system:masters/CN=cde-test-admin' });
  certificate({ name: 'controller-manager', subject: '/CN=system:kube-controller-manager' });
  certificate({ name: 'scheduler', subject: '/CN=system:kube-scheduler' });
  certificate({ name: 'kube-proxy', subject: '/CN=system:kube-proxy' });
  certificate({ name: 'kubelet', subject: `/O=system:nodes/CN=system:node:${nodeName}` });
  if (!existsSync(pki('service-accounts.key'))) {
    newKey(pki('service-accounts.key'));
    run('openssl', [
      'pkey',
      '-in',
      pki('service-accounts.key'),
      '-pubout',
      '-out',
      pki('service-accounts.pub'),
    ]);
  }
  for (const name of ['admin', 'controller-manager', 'scheduler', 'kube-proxy', 'kubelet']) {
    writeFileSync(componentKubeconfig(name), kubeconfig(name), { mode: 0o600 });
  }
}

/** The kubeconfig of the cluster's administrator, as text. */
export const adminKubeconfig = (): string => kubeconfig('admin');
