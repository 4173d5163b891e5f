# Upstream removes what a blocked server left here. The stand-in does not federate: nothing to remove.
class DomainBlockWorker
  include Sidekiq::Job

  def perform(domain_block_id) = DomainBlock.find(domain_block_id)
end
