import { expect, it } from 'vitest'
import { connectionsThatFit } from '../../src/server/descriptors.ts'

const limits = (soft: string): string => `Limit                     Soft Limit           Hard Limit           Units
Max processes             31713                31713                processes
Max open files            ${soft.padEnd(20)} 524288               files
`

it.each([
  ['64', 1],
  ['97', 1],
  ['250', 154],
  ['1024', 768],
  ['1048576', 786_432],
  ['unlimited', Infinity],
])('of %s files, %d are for client connections', (soft, connections) => {
  expect(connectionsThatFit(limits(soft))).toBe(connections)
})

it('where the system does not say, there is no bound', () => {
  expect(connectionsThatFit(null)).toBe(Infinity)
  expect(connectionsThatFit('')).toBe(Infinity)
})
