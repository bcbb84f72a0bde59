// The request fields that say who asks, beside Cookie.

/** Authorization (RFC 9110 §11.6.2), and the fields of their own in which APIs take keys and tokens. Lower case. */
const AUTHORIZING_FIELDS: ReadonlySet<string> = new Set([
  'authorization',
  'api-key',
  'apikey',
  'x-api-key',
  'x-apikey',
  'x-auth-token',
  'x-access-token',
  'x-goog-api-key',
  'x-amz-security-token',
])

/** Names in lower case, and by length whether one of them or `cookie` has it: most fields of a request are told apart by
 *  that. */
export interface CredentialFields {
  readonly names: ReadonlySet<string>
  readonly hasLength: readonly boolean[]
}

/** more: further names, lower case, by which a route table knows users. */
export function credentialFields(more: readonly string[] = []): CredentialFields {
  const names = new Set([...AUTHORIZING_FIELDS, ...more])
  const lengths = new Set(['cookie', ...names].map(({ length }) => length))
  return { names, hasLength: Array.from({ length: Math.max(...lengths) + 1 }, (_, length) => lengths.has(length)) }
}

/** Those that are credentials whatever a route table says. */
export const WELL_KNOWN: CredentialFields = credentialFields()
