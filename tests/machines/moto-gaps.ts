// What EC2 does and moto does not. Everything that stands between a provider and moto makes up for it.

export interface Ec2Reply {
  status: number;
  text: string;
}

/** As EC2 writes an error. */
export const errorReply = (code: string, message: string): string =>
  `<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>${code}</Code><Message>${message}</Message></Error></Errors><RequestID>test</RequestID></Response>`;

const maxConsoleBytes = 64 * 1024;

/** The reply to GetConsoleOutput. */
export function consoleReply(instanceId: string, text: string): Ec2Reply {
  const output = Buffer.from(text).subarray(-maxConsoleBytes).toString('base64');
  const content = `<instanceId>${instanceId}</instanceId><timestamp>${new Date().toISOString()}</timestamp><output>${output}</output>`;
  return {
    status: 200,
    text: `<GetConsoleOutputResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">${content}</GetConsoleOutputResponse>`,
  };
}

/** Moto decodes user data that ModifyInstanceAttribute sets once more than it should. */
export function withEncodedUserData(form: URLSearchParams, body: Buffer): Buffer {
  const data = form.get('UserData.Value');
  if (data === null) return body;
  const changed = new URLSearchParams(form);
  changed.set('UserData.Value', Buffer.from(data).toString('base64'));
  return Buffer.from(changed.toString());
}

/** A call that is repeated with its client token is done once. */
export function onceForToken() {
  const replies = new Map<string, Promise<Ec2Reply>>();
  return (form: URLSearchParams, pass: () => Promise<Ec2Reply>): Promise<Ec2Reply> => {
    const token = form.get('ClientToken');
    if (!token) return pass();
    const key = `${form.get('Action')} ${token}`;
    const known = replies.get(key);
    if (known) return known;
    const reply = pass();
    replies.set(key, reply);
    const forget = () => replies.delete(key);
    reply.then(({ status }) => status >= 300 && forget(), forget);
    return reply;
  };
}

/** Instances can be terminated once more, which moto refuses if it has deleted their network interface. */
export async function terminateEach(
  form: URLSearchParams,
  pass: (form: URLSearchParams) => Promise<Ec2Reply>,
): Promise<Ec2Reply> {
  const ids = [...form].filter(([key]) => /^InstanceId\.\d+$/.test(key)).map(([, id]) => id);
  let reply: Ec2Reply = {
    status: 200,
    text: '<TerminateInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><instancesSet/></TerminateInstancesResponse>',
  };
  for (const id of ids) {
    const one = new URLSearchParams([...form].filter(([key]) => !key.startsWith('InstanceId.')));
    one.set('InstanceId.1', id);
    const said = await pass(one);
    if (said.text.includes('InvalidNetworkInterfaceID.NotFound')) continue;
    if (said.status >= 300) return said;
    reply = said;
  }
  return reply;
}
