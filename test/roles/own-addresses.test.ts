import { networkInterfaces } from "node:os";
import { expect } from "chai";
import { apiServerEndpoints, interfaceAddresses } from "../../src/roles/own-addresses.ts";

describe("own addresses, to which no tunnel leads", () => {
  it("are those of this machine", () => {
    const known = Object.values(networkInterfaces()).flatMap((list = []) => list);
    expect(interfaceAddresses()).to.have.members(known.map(({ address }) => address));
  });

  /** The EndpointSlice of the API server's Service, with more in it. */
  const slice = (more: object) => ({
    metadata: { name: "kubernetes", uid: "u", resourceVersion: "1" },
    ...more,
  });

  it("are those of the API server, as its EndpointSlice has them", () => {
    const addresses = ["203.0.113.1", "203.0.113.2", "2001:db8::1"];
    const endpoints = [
      { addresses: [addresses[0], addresses[1]], conditions: { ready: true } },
      { addresses: [addresses[2]] },
    ];
    const ports = [{ name: "https", protocol: "TCP", port: 6443 }];
    expect(apiServerEndpoints({ list: () => [slice({ endpoints, ports })] })).to.deep.equal(
      addresses.map((address) => ({ address, ports: [6443] })),
    );
  });

  it("are none where nothing is known, or something else stands there", () => {
    const odd = [{}, { endpoints: null }, { endpoints: [{}] }, { endpoints: [{ addresses: [1] }] }];
    expect(apiServerEndpoints({ list: () => [] })).to.deep.equal([]);
    expect(apiServerEndpoints({ list: () => odd.map(slice) })).to.deep.equal([]);
  });
});
