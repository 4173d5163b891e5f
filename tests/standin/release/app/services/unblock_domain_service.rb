# Upstream gives back what the block had taken from the other server's accounts. There are none here.
class UnblockDomainService
  def call(domain_block) = domain_block.destroy
end
