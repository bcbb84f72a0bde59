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

/** Names in lower case, and how long the shortest and the longest of them and `cookie` are: most fields of a request are
 *  told apart by that. */
export interface CredentialFields {
  readonly names: ReadonlySet<string>
  readonly minLength: number
  readonly maxLength: number
}

/** more: further names, lower case, by which a route table knows users. */
export function credentialFields(more: readonly string[] = []): CredentialFields {
  const names = new Set([...AUTHORIZING_FIELDS, ...more])
  const lengths = ['cookie', ...names].map(({ length }) => length)
  return { names, minLength: Math.min(...lengths), maxLength: Math.max(...lengths) }
}

/** Those that are credentials whatever a route table says. */
export const WELL_KNOWN: CredentialFields = credentialFields()
