# Upstream removes what a blocked server left here. The stand-in does not federate: nothing to remove.
class DomainBlockWorker
  include Sidekiq::Job

  def perform(domain_block_id, update = false) = DomainBlock.find_by(id: domain_block_id)
end
